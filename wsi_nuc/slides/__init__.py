"""Readers of slides, the choice between them by content, and the identity of a slide."""
