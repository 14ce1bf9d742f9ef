"""What the compact network sees in one batch: its maps of every tile, from which points and masks are made."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_nuc.models.base import Fetch, PromptedLook
from wsi_nuc.models.compact.embedder import embed
from wsi_nuc.models.compact.net import Maps
from wsi_nuc.models.compact.network import Network, cut
from wsi_nuc.models.compact.prompter import propose
from wsi_nuc.models.compact.segmentor import segment
from wsi_nuc.models.finite import Unchecked
from wsi_nuc.types import Float32, Int64, MaskCrops, Prompts, TileBatch


def look(network: Network, batch: TileBatch) -> CompactLook:
    maps = [network.maps(cut(rgb, tile)) for rgb, tile in zip(batch.rgb, batch.tiles, strict=True)]
    return CompactLook(network, maps, (batch.rgb.shape[1], batch.rgb.shape[2]))


class CompactLook(PromptedLook):
    def __init__(self, network: Network, maps: Sequence[Unchecked[Maps]], size: tuple[int, int]) -> None:
        """`maps`: one per tile. `size`: height and width of a tile."""
        self._network, self._maps, self._size = network, maps, size

    def _propose(self) -> Prompts:
        return propose(self._network, [maps.checked() for maps in self._maps], self._size)

    def masks(self, wanted: Sequence[int]) -> Fetch[Sequence[MaskCrops]]:
        return segment(self._network, [maps.outputs for maps in self._maps], self._prompts, wanted)

    def embed(self, xy_tile: Float32, row: Int64) -> Fetch[Float32]:
        return embed(self._network, [maps.outputs for maps in self._maps], xy_tile, row)
