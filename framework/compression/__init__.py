"""Model directory to a smaller model directory."""
