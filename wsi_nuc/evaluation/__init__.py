"""Scores of nuclei against annotations, each under the protocol that the papers use."""
