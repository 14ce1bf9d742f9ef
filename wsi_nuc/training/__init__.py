"""Training of the networks. Nothing in the core imports this."""
