"""Results on disk: written durably, published in one step, verified, read back and packed."""
