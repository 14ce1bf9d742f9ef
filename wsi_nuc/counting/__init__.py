"""Counts of published nuclei where they are wanted: in drawn regions, on a grid, or over the whole slide."""
