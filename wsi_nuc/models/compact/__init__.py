"""A small network that does all of PromptNucSeg on one shared encoder: points, region mask, classes and masks."""
