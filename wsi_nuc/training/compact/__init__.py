"""Training of the compact network from images with masks, with points, or with the foreground alone."""
