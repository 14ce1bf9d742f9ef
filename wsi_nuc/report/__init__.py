"""One slide's page: what was found, what it looks like, and whether it can be trusted."""
