"""The table of the classes of a store as CSV beside it, because people open that in a spreadsheet.

It says what the store says, so it can be made again at any time. Nothing reads it, and `verify` does not look at
it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wsi_nuc.errors import StorageError
from wsi_nuc.features.dab import POSITIVE_SHARE, is_measured, positive_shares
from wsi_nuc.safezip import contents
from wsi_nuc.store import classes, durable
from wsi_nuc.store.commit import commit_lock
from wsi_nuc.store.flat import class_table_of, to_csv
from wsi_nuc.store.manifest import ROOT
from wsi_nuc.store.place import Place
from wsi_nuc.store.private import FOLDER
from wsi_nuc.store.zipping import present

COLUMNS = (classes.CLASS, *classes.FIGURES, *classes.TISSUE)


def class_table(store: Path) -> bytes:
    """One row per class, as in the attributes of the store's root. Where DAB was measured, a last column holds the
    share of positive nuclei. What cannot be known is empty."""
    rows, names = class_rows(store), [column.name for column in COLUMNS]
    if is_measured(store):
        names.append(POSITIVE_SHARE)
        shares = positive_shares(store)
        rows = [{**row, POSITIVE_SHARE: shares[row["class"]]} for row in rows]
    return to_csv(names, ([_cell(row.get(name)) for name in names] for row in rows))


def class_rows(store: Path) -> list[dict[str, Any]]:
    """The figures of each class, from the attributes of the store's root."""
    path = contents(store) / ROOT
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_bytes())["attributes"]["wsi_nuc"]["classes"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StorageError(path, f"has no figures of classes ({error})", "run the slide again") from None
    return rows


def write_class_table(final: Place) -> None:
    """Create or replace the table beside a store. While another process replaces the store, this waits."""
    with commit_lock(final.parent, final.name):
        store = present(final)
        if store.exists():
            _replace(class_table_of(final), class_table(store.path))


def _replace(table: Place, data: bytes) -> None:
    """Under the lock, so that what a killed process left unfinished is found under the same name."""
    unfinished = table.parent / FOLDER / f".tmp-{table.name}"
    unfinished.unlink()
    try:
        durable.write_file(unfinished, data)
        durable.sync(unfinished)
        table.stat()  # refuses a link
        durable.rename(unfinished, table)
    finally:
        unfinished.unlink()
    durable.sync(table.parent)


def _cell(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None
