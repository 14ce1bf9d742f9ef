"""The definitions of the scores, written slowly, pixel by pixel and pair by pair, to test the fast ones."""

from __future__ import annotations

import itertools

import numpy as np


def masks(labels):
    return [labels == i for i in sorted(set(labels.ravel().tolist()) - {0})]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def aji(truth, predicted):
    used, inter, union = set(), 0, 0
    for t in truth:
        best, score = None, 0.0
        for j, p in enumerate(predicted):
            if iou(t, p) > score:
                best, score = j, iou(t, p)
        if best is None:
            union += t.sum()
        else:
            used.add(best)
            inter += (t & predicted[best]).sum()
            union += (t | predicted[best]).sum()
    union += sum(p.sum() for j, p in enumerate(predicted) if j not in used)
    return inter / union if union else float("nan")


def all_aji_plus(truth, predicted):
    """The value of every one-to-one assignment with the greatest sum of IoUs (ties allow several)."""
    slots = list(range(len(predicted))) + [None] * len(truth)
    values = []
    for chosen in set(itertools.permutations(slots, len(truth))):
        gain, inter, union = 0.0, 0, 0
        for t, j in zip(truth, chosen, strict=True):
            if j is None or not (t & predicted[j]).any():
                union += t.sum()
                continue
            gain += iou(t, predicted[j])
            inter += (t & predicted[j]).sum()
            union += (t | predicted[j]).sum()
        taken = {j for t, j in zip(truth, chosen, strict=True) if j is not None and (t & predicted[j]).any()}
        union += sum(p.sum() for j, p in enumerate(predicted) if j not in taken)
        values.append((gain, inter / union if union else float("nan")))
    best = max(gain for gain, _ in values)
    return [value for gain, value in values if gain > best - 1e-12]


def panoptic(truth, predicted):
    """tp, fp, fn and the sum of the matched IoUs."""
    pairs = [(i, j) for i, t in enumerate(truth) for j, p in enumerate(predicted) if iou(t, p) > 0.5]
    return (
        len(pairs),
        len(predicted) - len({j for _, j in pairs}),
        len(truth) - len({i for i, _ in pairs}),
        sum(iou(truth[i], predicted[j]) for i, j in pairs),
    )


def dice(truth, predicted):
    a, b = truth > 0, predicted > 0
    total = a.sum() + b.sum()
    return 2 * (a & b).sum() / total if total else float("nan")


def greedy(truth_xy, xy, score, radius):
    """For each predicted point the index of the true point that it takes, or -1."""
    free, partner = list(range(len(truth_xy))), [-1] * len(xy)
    for i in sorted(range(len(xy)), key=lambda i: (-score[i], i)):
        near = [(float(((truth_xy[t] - xy[i]) ** 2).sum()), t) for t in free]
        near = [pair for pair in near if pair[0] <= radius**2]
        if near:
            partner[i] = min(near)[1]
            free.remove(partner[i])
    return partner


def hover_f1(truth_types, predicted_types, partner, c):
    tp = fp = fn = fp_d = fn_d = 0
    for j, t in enumerate(predicted_types):
        if partner[j] < 0:
            fp_d += t == c
        elif truth_types[partner[j]] == c:
            tp += t == c
            fn += t != c
        elif t == c and truth_types[partner[j]] >= 0:
            fp += 1
    fn_d = sum(t == c for i, t in enumerate(truth_types) if i not in set(partner))
    total = 2 * tp + 2 * fp + 2 * fn + fp_d + fn_d
    return 2 * tp / total if total else float("nan")


def crossing_number(x, y, rings):
    """Whether the point lies inside, by the even-odd rule."""
    inside = False
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if (y0 <= y < y1 or y1 <= y < y0) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                inside = not inside
    return inside
