"""Training of PromptNucSeg: a prompter, a segmentor, or both together."""
