"""What the PromptNucSeg paper reports for its own models, to print beside a measured row."""

from __future__ import annotations

PANNUKE_CLASSES = ("Neoplastic", "Epithelial", "Inflammatory", "Connective", "Dead")

# Table 1, PromptNucSeg-H: bPQ, mPQ averaged over the 19 tissues, and their deviation over the three splits.
TABLE_1_AVERAGE = {"PromptNucSeg-H": {"Average": (0.6924, 0.5123), "Std": (0.0093, 0.0147)}}

# Table 2: P, R, F1 of detection, then of each class in the order of PANNUKE_CLASSES.
TABLE_2 = {
    "PromptNucSeg": (
        *(0.82, 0.85, 0.84),
        *(0.70, 0.72, 0.71),
        *(0.73, 0.78, 0.76),
        *(0.58, 0.61, 0.59),
        *(0.55, 0.55, 0.55),
        *(0.44, 0.49, 0.46),
    )
}

# Table 3: PQ of each class in the order of PANNUKE_CLASSES.
TABLE_3 = {"PromptNucSeg-H": (0.598, 0.582, 0.441, 0.433, 0.161)}

# Table 4: Kumar AJI, PQ; CPM-17 AJI, PQ.
TABLE_4 = {
    "PromptNucSeg-B": (0.614, 0.620, 0.731, 0.726),
    "PromptNucSeg-B + TTA": (0.620, 0.627, 0.734, 0.730),
    "PromptNucSeg-L": (0.621, 0.626, 0.734, 0.730),
    "PromptNucSeg-L + TTA": (0.625, 0.631, 0.740, 0.735),
    "PromptNucSeg-H": (0.622, 0.627, 0.740, 0.733),
    "PromptNucSeg-H + TTA": (0.624, 0.631, 0.743, 0.737),
}

# Table S2, PromptNucSeg-B: AJI and PQ, each with the in-domain score.
TABLE_S2 = {
    "CPM-17-train -> Kumar-test": ((0.592, 0.614), (0.598, 0.622)),
    "Kumar-train -> CPM-17-test": ((0.678, 0.731), (0.674, 0.726)),
}

# Table S3: combined CPM, then TNBC; AJI, DQ, SQ, PQ.
TABLE_S3 = {"PromptNucSeg-B": (0.655, 0.834, 0.786, 0.656, 0.608, 0.784, 0.802, 0.630)}
