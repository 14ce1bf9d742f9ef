"""From a slide to tiles: where the tissue is, which tiles are worked on, and their pixels."""
