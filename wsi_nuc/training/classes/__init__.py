"""Classes alone, learned from dots: the nuclei stay those of a finished compact model."""
