"""Model directory to text."""
