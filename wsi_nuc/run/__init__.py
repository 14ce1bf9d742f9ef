"""Compose one call: slides in, verified results out."""
