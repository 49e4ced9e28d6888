"""Checkpoints: where they lie, how they are written and read, and what makes a resumed run the same run."""
