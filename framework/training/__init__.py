"""Batches to checkpoints and a model directory: one explicit loop over DeepSpeed ZeRO."""
