"""A store's nuclei for other programs: the mirror of `importing`. `registry` lists the formats."""
