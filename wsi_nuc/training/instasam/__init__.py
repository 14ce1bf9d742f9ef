"""How InstaSAM is trained: from dots by way of pseudo-labels."""
