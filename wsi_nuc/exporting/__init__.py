"""Writes a store's nuclei for other programs: the reverse of `importing`. `registry` lists the formats."""
