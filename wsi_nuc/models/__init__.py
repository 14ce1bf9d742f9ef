"""A folder per model family, the registry that finds them, and what families share."""
