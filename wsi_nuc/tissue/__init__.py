"""Where on a slide there is something to look at: found on a small level, or told by the user."""
