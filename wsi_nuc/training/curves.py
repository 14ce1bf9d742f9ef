"""The course of a training: means of the losses, as CSV with one row per epoch and as a picture.

The picture needs matplotlib.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

VALIDATION = ("pq", "mpq", "aji", "f1", "class_f1")
Rows = Sequence[dict[str, float]]


class Sums:
    """Means of the losses over an epoch. The sums stay on the device until the means are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    def add(self, losses: Mapping[str, torch.Tensor]) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value.detach()
        self._steps += 1

    def means(self, over_processes: Callable[[torch.Tensor], torch.Tensor] = lambda own: own) -> dict[str, float]:
        """Mean of each loss over steps and processes. Afterwards the sums start again."""
        own = torch.stack([value.float() for value in self._sums.values()]) / self._steps
        values = over_processes(own).tolist()
        named = {f"loss_{name}": value for name, value in zip(self._sums, values, strict=True)}
        self._sums, self._steps = {}, 0
        return {"loss": sum(values)} | named


def write_curves(folder: Path, rows: Rows) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "curves.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({n: f"{v:.6g}" for n, v in row.items() if not math.isnan(v)} for row in rows)


def draw_curves(folder: Path, rows: Rows) -> bool:
    """Draw the losses above and the validation below; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    losses = [n for n in dict.fromkeys(n for row in rows for n in row) if n.startswith("loss")]
    _lines(upper, rows, losses)
    positive = all(row[name] > 0 for row in rows for name in losses if name in row)
    upper.set(ylabel="loss (mean of the epoch)", yscale="log" if positive else "linear")
    _lines(lower, rows, VALIDATION)
    lower.set(ylabel="validation", xlabel="epoch", ylim=(0, 1))
    figure.savefig(folder / "curves.png", dpi=110)
    pyplot.close(figure)
    return True


def _lines(axes: Any, rows: Rows, names: Sequence[str]) -> None:
    for name in names:
        points = [(row["epoch"], row[name]) for row in rows if not math.isnan(row.get(name, math.nan))]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 40 else None)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
