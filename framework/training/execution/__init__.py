"""How a step is computed, which changes speed and memory: compiled, recomputed, in 8 bits, the same bits every time."""
