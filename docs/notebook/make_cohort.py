"""Draws the slides of the notebook and runs the pipeline on them: eight patients of two groups, two slides each.

    python docs/notebook/make_cohort.py FOLDER

The groups truly differ: the slides of `treated` are drawn with half as many nuclei per area.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from wsi_nuc.synth import SynthSpec, write_slide

DENSITY = {"control": 1.3, "treated": 0.65}
PATIENTS, SLIDES = 4, 2


def main(folder: Path) -> None:
    lines = ["slide,id,patient,group,age"]
    for group, density in DENSITY.items():
        for patient in range(PATIENTS):
            for slide in range(SLIDES):
                name = f"{group}-{patient}-{slide}"
                seed = len(lines)
                write_slide(folder / f"{name}.svs", SynthSpec(size=1024, mpp=0.5, seed=seed, density=density))
                lines.append(f"{name}.svs,{name},{group}-{patient},{group},{40 + 3 * patient}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    cohort = str(folder / "cohort")
    for command in (
        ("plan", str(folder / "slides.csv"), "--out", cohort, "--features"),
        ("run", cohort),
        ("collect", cohort),
    ):
        subprocess.run([sys.executable, "-m", "wsi_nuc", "cohort", *command], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
