"""Looks at a run that are not taken at every step, and change nothing of it."""
