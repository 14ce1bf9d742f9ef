"""Cells that other programs found become a store like one of our own."""
