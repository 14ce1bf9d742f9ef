"""Cells that other programs found become a store like the result of a run."""
