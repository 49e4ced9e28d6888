"""Batches to loss: the decoder, its arithmetic, and its form as a Hugging Face directory."""
