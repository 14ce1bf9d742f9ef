"""How a configuration names labelled images."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wsi_nuc.config import Section


class SourceConfig(Section):
    """Images of one folder. Where a choice of images is empty, all of them are taken."""

    path: Path
    name: str = ""
    """A known data set, for its classes, resolution and licence."""
    reader: str = ""
    """One of `registry.READERS`, else decided by content."""
    split: str = ""
    groups: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    classes: dict[str, str] = Field(default_factory=dict)
    """This set's class names -> the model's; not needed where they are the same."""
