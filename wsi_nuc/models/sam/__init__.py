"""Segment Anything at 256 px: segment-anything's own modules and parameter names, computed without waste."""
