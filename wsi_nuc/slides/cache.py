"""A few open slides per process: a worker gets a `SlideRef` with every region and opens the file once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from wsi_nuc.slides.address import is_url
from wsi_nuc.slides.identity import Signature, stat_signature
from wsi_nuc.slides.registry import open_slide
from wsi_nuc.types import SlideRef, SlideSource

CAPACITY = 4
Key = tuple[int, SlideRef, Signature]

_open: OrderedDict[Key, SlideSource] = OrderedDict()
_lock = threading.Lock()


def cached_slide(ref: SlideRef) -> SlideSource:
    """The open slide of `ref`, opened again if its files changed.

    Sources that leave the cache are not closed here, because another thread may be reading them: they close when
    the last reference goes. The process id is part of the key, since handles do not survive a fork.
    """
    key: Key = (os.getpid(), ref, stat_signature(ref))
    with _lock:
        if key in _open:
            _open.move_to_end(key)
            return _open[key]
        # A removed copy on this node's disk keeps its space for as long as it is open.
        for stale in [cached for cached in _open if cached[1] == ref or _gone(cached[1])]:
            del _open[stale]
        source = _open[key] = open_slide(ref)
        while len(_open) > CAPACITY:
            _open.popitem(last=False)
        return source


def _gone(ref: SlideRef) -> bool:
    return not is_url(ref.path) and not os.path.lexists(ref.path)
