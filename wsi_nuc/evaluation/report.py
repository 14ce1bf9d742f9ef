"""The results of an evaluation as the tables of the papers and, with all digits, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from wsi_nuc.evaluation.protocol import Means, PanNukeMeans, image_means, mean, pannuke_means
from wsi_nuc.evaluation.published import paper_order, with_paper
from wsi_nuc.evaluation.tables import (
    Table,
    as_markdown,
    as_text,
    table_1,
    table_2,
    table_3,
    table_4,
    table_s2,
    table_s3,
    to_json,
)
from wsi_nuc.evaluation.variants import EvaluateConfig, Result

# Columns of the overview. The last two are what the masks lose when they are drawn as outlines.
KINDS = ("AJI", "AJI+", "Dice", "DQ", "SQ", "PQ", "P", "R", "F1", "AJI lost", "PQ lost")


def tables_of(results: Sequence[Result], config: EvaluateConfig | None = None) -> list[Table]:
    """An overview of all rows and sets, the tables that `config` asks for, PQ and F1 by class, and for PanNuke's
    data its tables."""
    tables = [overview(results)] + ([] if config is None else _asked_for(results, config))
    for name in dict.fromkeys(result.data for result in results):
        here = [result for result in results if result.data == name]
        if here[0].classes and not here[0].pannuke:
            tables.append(by_class(name, here))
    pannuke = [result for result in results if result.pannuke]
    return [with_paper(table) for table in tables + (_pannuke(pannuke) if pannuke else [])]


def _asked_for(results: Sequence[Result], config: EvaluateConfig) -> list[Table]:
    by_row: dict[str, dict[str, Means]] = {}
    by_variant: dict[tuple[str, str], Means] = {}
    for result in results:
        by_variant[result.variant, result.data] = image_means(result.scores)
        by_row.setdefault(result.row, {})[result.data] = by_variant[result.variant, result.data]
    transfers = {
        f"{result.row} -> {result.data}": (by_variant[result.variant, result.data], by_variant[home, result.data])
        for result in results
        if (home := config.variants[result.variant].home) and (home, result.data) in by_variant
    }
    sets = tuple(config.data)
    made = {"4": table_4(by_row, sets), "S2": table_s2(transfers), "S3": table_s3(by_row, sets)}
    return [made[number] for number in config.tables]


def overview(results: Sequence[Result]) -> Table:
    sets = tuple(dict.fromkeys(result.data for result in results))
    by_place: dict[tuple[str, str], list[Means]] = {}
    for result in results:
        by_place.setdefault((result.row, result.data), []).append(image_means(result.scores))
    rows = {
        row: [value for name in sets for value in _averaged(by_place.get((row, name), []))]
        for row in dict.fromkeys(result.row for result in results)
    }
    columns = tuple((name, kind) for name in sets for kind in KINDS)
    title = "Means over images; detection over all nuclei; what is lost by tracing the masks for a run's outlines"
    return Table("Overview", title, "Variant", columns, rows)


def _averaged(splits: Sequence[Means]) -> list[float]:
    each = [
        (
            *(m.aji, m.aji_plus, m.dice, m.dq, m.sq, m.pq),
            *(m.detection.precision, m.detection.recall, m.detection.f1),
            *(m.aji - m.traced_aji, m.pq - m.traced_pq),
        )
        for m in splits
    ]
    return [mean(column) for column in zip(*each, strict=True)] if each else [float("nan")] * len(KINDS)


def by_class(name: str, results: Sequence[Result]) -> Table:
    """PQ (mean over images) and HoVer-Net's F1 (over all nuclei) of every class."""
    classes = results[0].classes
    rows = {}
    for result in results:
        means = image_means(result.scores)
        pq = means.pq_by_class or (float("nan"),) * len(classes)
        rows[result.row] = [v for c in range(len(classes)) for v in (pq[c], means.hover_by_class[c].f1)]
    columns = tuple((c, kind) for c in classes for kind in ("PQ", "F1"))
    return Table("Classes", f"PQ and F1 by class on {name}", "Variant", columns, rows)


def _pannuke(results: Sequence[Result]) -> list[Table]:
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.row, []).append(result)
    order = paper_order(results[0].classes)
    own = {row: [_pannuke_in(order, split) for split in splits] for row, splits in rows.items()}
    images = {row: [_images_in(order, split) for split in splits] for row, splits in rows.items()}
    classes = [results[0].classes[c] for c in order]
    tables = [table_1(own)]
    return [*tables, table_2(images, classes), table_3(own, classes)] if classes else tables


def _pannuke_in(order: Sequence[int], result: Result) -> PanNukeMeans:
    means = pannuke_means(result.scores)
    return replace(means, pq_by_class=tuple(means.pq_by_class[c] for c in order))


def _images_in(order: Sequence[int], result: Result) -> Means:
    means = image_means(result.scores)
    return replace(means, detection_by_class=tuple(means.detection_by_class[c] for c in order))


def write_report(config: EvaluateConfig, results: Sequence[Result]) -> str:
    """The tables as text. With `out` they are written to `tables.md`, and all scores to `scores.json`."""
    tables = tables_of(results, config)
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "tables.md").write_text("\n".join(as_markdown(table) for table in tables), encoding="utf-8")
        everything = {"config": config.model_dump(mode="json"), "results": [_plain(result) for result in results]}
        text = json.dumps(everything, indent=1, allow_nan=False)
        (config.out / "scores.json").write_text(text, encoding="utf-8")
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return "\n".join([*(as_text(table) for table in tables), *notes])


def _plain(result: Result) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "variant": result.variant,
        "row": result.row,
        "data": result.data,
        "classes": list(result.classes),
        "notes": list(result.notes),
        "means": json.loads(to_json(image_means(result.scores))),
        "images": json.loads(to_json(list(result.scores))),
    }
    if result.pannuke:
        plain["pannuke"] = json.loads(to_json(pannuke_means(result.scores)))
    return plain
