"""Occlusion: the score with a window of the image hidden, exact and incremental."""
