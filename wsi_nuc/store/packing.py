"""A published store is packed into one file, or becomes a folder again."""

from __future__ import annotations

from pathlib import Path

from wsi_nuc.errors import StorageError, UsageError
from wsi_nuc.events import Emit, ignore
from wsi_nuc.safezip import SUFFIX, contents, flaw_of, other_form
from wsi_nuc.store import durable
from wsi_nuc.store import manifest as manifests
from wsi_nuc.store.commit import Staging, commit_lock, make_visible, move_away
from wsi_nuc.store.folders import place_of
from wsi_nuc.store.place import Place
from wsi_nuc.store.verify import RESTORE, is_result, verified_manifest, verify
from wsi_nuc.store.zipping import present, unpack_into

FOLDER_SUFFIX = ".zarr"


def convert(path: Path, packed: bool, keep: bool = False, emit: Emit = ignore) -> Path:
    """Pack the store at `path`, or make it a folder, and return its path. A store that has that form already is
    verified."""
    store = present(place_of(path, emit))
    if flaw := flaw_of(store.path):
        raise StorageError(store, flaw, RESTORE)
    if not is_result(store.path):
        raise UsageError(path, "is not a result of wsi-nuc", "give a published SLIDE.zarr or SLIDE.zarr.zip")
    if not store.name.endswith((FOLDER_SUFFIX, SUFFIX)):
        raise UsageError(path, "has another name than a store", f"give it one that ends in {FOLDER_SUFFIX}")
    if store.name.endswith(SUFFIX) != packed:
        _convert(store, keep)
    else:
        verified_manifest(store.path)
    return store.path.with_name(store.name if store.name.endswith(SUFFIX) == packed else other_form(store.name))


def _convert(store: Place, keep: bool) -> None:
    """Pack a published store, or unpack a packed one.

    Without `keep`, the old form is removed as soon as the new one is published and verified. A kill at any moment
    leaves the store in one form, or in both.
    """
    out = store.parent
    manifest = verified_manifest(store.path)
    with Staging(out, other_form(store.name)) as staging:
        if staging.name.endswith(SUFFIX):
            staging.refuse_broken(staging.packed(store.path))
        else:
            unpack_into(contents(store.path), [*manifest["files"], manifests.MANIFEST], staging.root)
            durable.sync_tree(staging.root)
            staging.refuse_broken(staging.root)
        with commit_lock(out, store.name):
            staging.refuse_swaps()
            if manifests.load(store.path) != (manifest, ""):
                raise StorageError(store, "was replaced meanwhile", "repeat the same command")
            staging.refuse_other_tree()
            if not staging.final.exists():
                make_visible(staging, keep_other=True)
            elif verify(staging.final.path) or manifests.read(staging.final.path) != manifest:
                raise StorageError(staging.final, "is there already, and is not the same", "move it away")
            if not keep:
                durable.remove_tree(move_away(store))
