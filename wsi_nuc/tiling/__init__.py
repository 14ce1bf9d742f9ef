"""From a slide and the outlines of its tissue to tiles: which of them are worked on, and their pixels."""
