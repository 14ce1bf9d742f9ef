"""PromptNucSeg: a prompter that proposes a point per nucleus, and SAM at 256 px that turns points into masks."""
