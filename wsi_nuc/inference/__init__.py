"""From a batch of tiles to nuclei: which prompts a tile answers for, and the outline of each of their masks."""
