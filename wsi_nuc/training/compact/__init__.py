"""Training of the compact network: mixed supervision, from masks, points and foreground."""
