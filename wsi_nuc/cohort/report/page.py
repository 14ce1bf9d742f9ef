"""The page, section by section. Whatever comes from a list or a slide is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import wsi_nuc
from wsi_nuc.cohort.collect import Collected, gather
from wsi_nuc.cohort.folder import CohortFolder
from wsi_nuc.cohort.plan import Plan, load
from wsi_nuc.cohort.records import DONE
from wsi_nuc.cohort.report.histogram import histogram, number
from wsi_nuc.cohort.report.outliers import Figure, Outlier, figures_of, outliers, values_of
from wsi_nuc.cohort.report.style import HEAD, STYLE
from wsi_nuc.cohort.report.thumbnails import data_uri
from wsi_nuc.cohort.state import counts

Row = dict[str, Any]

UNLIKE = "unlike_training_images"
MOST_THUMBNAILS, MOST_ROWS = 240, 2000


def write_report(folder: CohortFolder) -> Collected:
    """`report.html`, from what there is now; it can be written at any time."""
    plan, got = load(folder), gather(folder)
    done = [row for row in got.slides if row["state"] == DONE]
    figures = figures_of(got.columns)
    far = outliers(figures, done)
    sections = [
        _top(folder, plan, got, done),
        _not_done(got),
        _warnings(plan, done),
        _distributions(figures, done),
        _outliers(far),
        _thumbnails(folder, done, far),
        _patients(got.patients),
        _slides(done),
    ]
    title = f"Cohort {folder.root.name}"
    page = HEAD.format(title=escape(title), style=STYLE) + "\n".join(sections) + "\n</body></html>\n"
    folder.write(folder.report, page.encode("utf-8", "backslashreplace"))
    return got


def _top(folder: CohortFolder, plan: Plan, got: Collected, done: Sequence[Row]) -> str:
    counted = counts(got.states)
    nuclei = sum(row.get("nuclei") or 0 for row in done)
    tissue = sum(row.get("tissue_mm2") or 0.0 for row in done)
    tiles = [(state, f"{count:,}", state) for state, count in counted.items()]
    tiles += [("", f"{len(got.patients):,}", "patients"), ("", f"{tissue:,.1f}", "mm² of tissue")]
    tiles += [("", f"{nuclei:,}", "nuclei")]
    cards = "".join(
        f'<div class="tile"><b class="{c}">{value}</b><span>{what}</span></div>' for c, value, what in tiles
    )
    bar = "".join(f'<i class="{state}" style="flex:{count}"></i>' for state, count in counted.items() if count)
    model = escape(str(plan.settings.get("model", "")))
    return (
        f"<h1>Cohort {escape(folder.root.name)}</h1>"
        f'<p class="soft">{len(got.states):,} slides, model {model}, wsi-nuc {wsi_nuc.__version__}. '
        "For research use only.</p>"
        f'<div class="tiles">{cards}</div><div class="share">{bar}</div>'
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """`rows` hold finished HTML; `numbers` are the columns that align to the right."""
    right = [' class="n"' if i in numbers else "" for i in range(len(header))]
    head = "".join(f"<th{right[i]}>{name}</th>" for i, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{right[i]}>{cell}</td>" for i, cell in enumerate(cells)) + "</tr>" for cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cut(found: Sequence[Any], what: str) -> str:
    left = len(found) - MOST_ROWS
    return f'<p class="soft">and {left:,} more {what}: see cohort.parquet</p>' if left > 0 else ""


def _not_done(got: Collected) -> str:
    rows = [one for one in got.states if one.state != DONE]
    if not rows:
        return "<h2>Not done</h2><p>Every slide is published and verified.</p>"
    cells = (
        (
            f'<span class="{one.state}">{one.state}</span>',
            escape(one.row.label),
            escape(one.row.patient),
            escape(one.error),
        )
        for one in rows[:MOST_ROWS]
    )
    return (
        f"<h2>Not done ({len(rows):,})</h2>"
        + _table(("state", "slide", "patient", "reason"), cells)
        + _cut(rows, "slides")
    )


def _warnings(plan: Plan, done: Sequence[Row]) -> str:
    """What the plan saw, and which slides look like none that the model was trained on."""
    found = [(row.label, text) for row in plan.runnable if row.facts for text in row.facts.warnings]
    found += [(row["id"], f"unlike the training images: {row[UNLIKE]}") for row in done if row.get(UNLIKE)]
    if not found:
        return ""
    cells = ((escape(label), escape(text)) for label, text in found[:MOST_ROWS])
    return f"<h2>Warnings ({len(found):,})</h2>" + _table(("slide", "warning"), cells) + _cut(found, "warnings")


def _distributions(figures: Sequence[Figure], done: Sequence[Row]) -> str:
    drawn = []
    for figure in figures:
        _, values = values_of(figure, done)
        if values.any():
            caption = f"{escape(figure.title)} <span class=soft>({len(values):,} slides)</span>"
            drawn.append(f"<figure><figcaption>{caption}</figcaption>{histogram(figure, values)}</figure>")
    return f'<h2>Distributions</h2><div class="grid">{"".join(drawn)}</div>' if drawn else ""


def _outliers(far: Sequence[Outlier]) -> str:
    if not far:
        return "<h2>Outliers</h2><p>No slide is far from the others in any figure.</p>"
    cells = (
        (escape(one.id), escape(one.figure.title), number(one.value), number(one.median), f"{one.sigmas:+.1f}")
        for one in far[:MOST_ROWS]
    )
    header = ("slide", "figure", "value", "median", "σ")
    note = '<p class="soft">Far from the median in robust standard deviations: worth a look, not a verdict.</p>'
    return f"<h2>Outliers ({len(far):,})</h2>{note}" + _table(header, cells, (2, 3, 4)) + _cut(far, "outliers")


def _thumbnails(folder: CohortFolder, done: Sequence[Row], far: Sequence[Outlier]) -> str:
    """Outliers and slides without nuclei first; of the others as many as there is room for, evenly chosen."""
    marked = {one.id for one in far} | {row["id"] for row in done if not row.get("nuclei")}
    chosen = [row for row in done if row["id"] in marked][:MOST_THUMBNAILS]
    others = [row for row in done if row["id"] not in marked]
    room = min(MOST_THUMBNAILS - len(chosen), len(others))
    chosen += [others[i * len(others) // room] for i in range(room)]
    if not chosen:
        return ""
    pictures = "".join(_picture(folder, row, row["id"] in marked) for row in chosen)
    left = len(done) - len(chosen)
    note = f'<p class="soft">{len(chosen):,} of {len(done):,} slides.</p>' if left else ""
    return f'<h2>Thumbnails</h2>{note}<div class="thumbs">{pictures}</div>'


def _picture(folder: CohortFolder, row: Row, marked: bool) -> str:
    uri = data_uri(folder.store(row["id"]))
    image = f'<img src="{uri}" alt="">' if uri else '<span class="soft">no picture</span>'
    density = row.get("nuclei_per_mm2")
    said = f"{number(density)} nuclei/mm²" if density else "no nuclei"
    name = escape(row["id"])
    caption = f'{name}<br><span class="soft">{said}</span>'
    return f'<figure{" class=far" if marked else ""}><div class="pic">{image}</div>{caption}</figure>'


def _patients(patients: Sequence[Row]) -> str:
    if not patients:
        return ""
    cells = (
        (escape(row["id"]), str(row["slides"]), f'<span class="{_mood(row)}">{row["state"]}</span>', *_basics(row))
        for row in patients[:MOST_ROWS]
    )
    header = ("patient", "slides", "state", "mm²", "nuclei", "per mm²")
    table = _table(header, cells, (1, 3, 4, 5)) + _cut(patients, "patients")
    return f"<h2>Patients</h2><details><summary>{len(patients):,} patients</summary>{table}</details>"


def _mood(row: Row) -> str:
    return {"done": "done", "partial": "pending"}.get(row["state"], "failed")


def _slides(done: Sequence[Row]) -> str:
    cells = ((escape(row["id"]), escape(row["patient"] or ""), *_basics(row)) for row in done[:MOST_ROWS])
    table = _table(("slide", "patient", "mm²", "nuclei", "per mm²"), cells, (2, 3, 4)) + _cut(done, "slides")
    return f"<h2>Slides</h2><details><summary>{len(done):,} slides that are done</summary>{table}</details>"


def _basics(row: Row) -> tuple[str, str, str]:
    tissue, nuclei, density = (row.get(name) for name in ("tissue_mm2", "nuclei", "nuclei_per_mm2"))
    return (
        number(tissue) if tissue is not None else "",
        f"{nuclei:,}" if nuclei is not None else "",
        number(density) if density is not None else "",
    )
