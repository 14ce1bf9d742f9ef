"""The dots of a user: from the file to labelled images at the resolution of a model."""
