"""The results of an evaluation as the tables of the papers and, with all digits, as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from wsi_nuc.evaluation.protocol import ImageScore, Means, PanNukeMeans, image_means, mean, pannuke_means
from wsi_nuc.evaluation.published import paper_order, with_paper
from wsi_nuc.evaluation.statistics import METHOD, Interval, Paired, compared, intervals
from wsi_nuc.evaluation.tables import (
    Cell,
    Cost,
    Table,
    as_markdown,
    as_text,
    plain,
    table_1,
    table_2,
    table_3,
    table_4,
    table_5,
    table_6,
    table_7,
    table_8,
    table_overlap,
    table_s2,
    table_s3,
)
from wsi_nuc.evaluation.variants import EvaluateConfig, Result

# Columns of the overview. The last two are what the masks lose when they are drawn as outlines.
KINDS = ("AJI", "AJI+", "Dice", "DQ", "SQ", "PQ", "P", "R", "F1", "AJI lost", "PQ lost")


def tables_of(results: Sequence[Result], config: EvaluateConfig | None = None) -> list[Table]:
    """An overview of all rows and sets, the tables that `config` asks for (by default PanNuke's data have Tables 1
    to 3), and PQ and F1 by class."""
    asked = config.tables if config else ()
    makers = _makers(results, config)
    if not asked and any(result.pannuke for result in results):
        asked = ("1", "2", "3") if paper_classes(results) else ("1",)
    tables = [overview(results), *(makers[number]() for number in asked)]
    for name in dict.fromkeys(result.data for result in results):
        here = [result for result in results if result.data == name]
        if here[0].classes and not here[0].pannuke:
            tables.append(by_class(name, here))
    return [with_paper(table) for table in tables]


def _makers(results: Sequence[Result], config: EvaluateConfig | None) -> dict[str, Callable[[], Table]]:
    """What makes the table of each number. Results of one row and data set are splits."""
    sets = tuple(dict.fromkeys(result.data for result in results)) if config is None else tuple(config.data)
    variants = {} if config is None else config.variants
    means = {(result.variant, result.data): image_means(result.scores) for result in results}
    by_row: dict[str, dict[str, Means]] = {}
    by_variant: dict[str, dict[str, Means]] = {}
    pannuke: dict[str, list[Result]] = {}
    for result in results:
        by_row.setdefault(result.row, {})[result.data] = means[result.variant, result.data]
        by_variant.setdefault(result.variant, {})[result.data] = means[result.variant, result.data]
        if result.pannuke:
            pannuke.setdefault(result.row, []).append(result)
    classes = paper_classes(results)
    own = {row: [_pannuke_in_order(split) for split in splits] for row, splits in pannuke.items()}
    images = {row: [_images_in_order(split) for split in splits] for row, splits in pannuke.items()}
    costs = {row: next((s.cost for s in splits if s.cost), Cost()) for row, splits in pannuke.items()}
    transfers = {
        f"{r.row} -> {r.data}": (means[r.variant, r.data], means[variants[r.variant].home, r.data])
        for r in results
        if r.variant in variants and (variants[r.variant].home, r.data) in means
    }
    parts = {v.parts: by_variant[name] for name, v in variants.items() if v.parts is not None}
    negatives = {
        (v.trained_negatives, int(v.use.get("negatives", v.trained_negatives)), v.oracle): by_variant[name]
        for name, v in variants.items()
        if v.trained_negatives is not None
    }
    overlaps = {
        int(v.use["overlap_px"]): by_variant[name] for name, v in variants.items() if "overlap_px" in v.use
    }
    return {
        "1": lambda: table_1(own),
        "2": lambda: table_2(images, classes),
        "3": lambda: table_3(own, classes),
        "4": lambda: table_4(by_row, sets),
        "5": lambda: table_5({row: (costs[row], splits) for row, splits in own.items()}),
        "6": lambda: table_6(parts, sets),
        "7": lambda: table_7(negatives, sets),
        "8": lambda: table_8(own, classes),
        "overlap": lambda: table_overlap(overlaps, sets),
        "S2": lambda: table_s2(transfers),
        "S3": lambda: table_s3(by_row, sets),
    }


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


def paper_classes(results: Sequence[Result]) -> list[str]:
    """PanNuke's classes in the paper's order."""
    classes = next((result.classes for result in results if result.pannuke and result.classes), ())
    return [classes[c] for c in paper_order(classes)]


def _pannuke_in_order(result: Result) -> PanNukeMeans:
    means = pannuke_means(result.scores)
    return replace(means, pq_by_class=tuple(means.pq_by_class[c] for c in paper_order(result.classes)))


def _images_in_order(result: Result) -> Means:
    means = image_means(result.scores)
    return replace(
        means, detection_by_class=tuple(means.detection_by_class[c] for c in paper_order(result.classes))
    )


def interval_table(
    results: Sequence[Result], each: Sequence[dict[str, Interval]], config: EvaluateConfig
) -> Table:
    """The 95 % interval of every score of every variant. `each`: those of each result."""
    sets = tuple(dict.fromkeys(result.data for result in results))
    kinds = ("bPQ", "mPQ", "F1") if all(result.pannuke for result in results) else ("AJI", "PQ", "F1")
    of = {(r.variant, r.data): of_scores for r, of_scores in zip(results, each, strict=True)}
    nothing = Interval(math.nan, math.nan, math.nan)
    rows: dict[str, list[Cell]] = {
        variant: [_limits(of.get((variant, s), {}).get(kind, nothing)) for s in sets for kind in kinds]
        for variant, _ in of
    }
    title = f"95 % intervals over images ({config.draws:,} draws, seed {config.seed})"
    return Table(
        "Intervals",
        title,
        "Variant",
        tuple((s, k) for s in sets for k in kinds),
        rows,
        notes=(METHOD["interval"],),
    )


def _limits(of: Interval | Paired) -> str:
    return "-" if math.isnan(of.low) else f"{of.low:.3f} to {of.high:.3f}"


def pairs_of(results: Sequence[Result], config: EvaluateConfig) -> list[Paired]:
    """Every row against the row of reference, on each data set that both were scored on."""
    out = []
    for data in dict.fromkeys(result.data for result in results):
        here = [result for result in results if result.data == data]
        of_rows: dict[str, dict[str, list[ImageScore]]] = {}
        for result in here:
            for score in result.scores:
                of_rows.setdefault(result.row, {}).setdefault(score.id, []).append(score)
        reference = config.reference or here[0].row
        kinds = ("bPQ", "mPQ") if here[0].pannuke else ("AJI", "PQ")
        theirs = of_rows.pop(reference, {})
        for row, ours in of_rows.items():
            out += compared(row, reference, data, ours, theirs, kinds, config.draws, config.seed)
    return out


def pair_table(pairs: Sequence[Paired]) -> Table:
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for pair in pairs:
        rows[pair.row, pair.reference, pair.data, pair.score] = [
            str(pair.images),
            f"{pair.difference:+.3f}",
            _limits(pair),
            f"{pair.p:.2g}",
        ]
    heads = ("Row", "Reference", "Data", "Score")
    columns = (("", "images"), ("", "difference"), ("", "95 % interval"), ("", "p"))
    return Table("Paired", "Differences on the same images", heads, columns, rows, notes=(METHOD["test"],))


def write_report(config: EvaluateConfig, results: Sequence[Result]) -> str:
    """The tables as text. With `out` they are written to `tables.md`, and all scores to `scores.json`."""
    pairs = pairs_of(results, config)
    each = [intervals(result.scores, result.pannuke, config.draws, config.seed) for result in results]
    tables = [
        *tables_of(results, config),
        interval_table(results, each, config),
        *([pair_table(pairs)] if pairs else []),
    ]
    if config.out is not None:
        config.out.mkdir(parents=True, exist_ok=True)
        (config.out / "tables.md").write_text("\n".join(as_markdown(table) for table in tables), encoding="utf-8")
        everything = {
            "config": config.model_dump(mode="json"),
            "results": [_plain(*pair) for pair in zip(results, each, strict=True)],
            "statistics": METHOD | {"draws": config.draws, "seed": config.seed},
            "paired": plain(pairs),
            "tables": plain(tables),
        }
        text = json.dumps(everything, indent=1, allow_nan=False)
        (config.out / "scores.json").write_text(text, encoding="utf-8")
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return "\n".join([*(as_text(table) for table in tables), *notes])


def _plain(result: Result, of_scores: dict[str, Interval]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "variant": result.variant,
        "row": result.row,
        "data": result.data,
        "classes": list(result.classes),
        "notes": list(result.notes),
        "means": plain(image_means(result.scores)),
        "intervals": plain(of_scores),
        "images": plain(result.scores),
    }
    if result.pannuke:
        out["pannuke"] = plain(pannuke_means(result.scores))
    if result.cost is not None:
        out["cost"] = plain(result.cost)
    return out
