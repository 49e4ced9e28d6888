"""Random numbers that are functions of a key and a counter: nothing drawn before enters.

Written out here because NumPy does not promise that its generators give the same stream in every version (NEP 19).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt64Array = NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: UInt64Array) -> UInt64Array:
    """The output of SplitMix64 for each state, in its place.

    Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014. The k-th number of a stream
    is that of the state `begin + k * GOLDEN`, k = 1, 2, ..., so any of them can be had alone.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state ^= state >> np.uint64(shift)
        state *= np.uint64(factor)
    state ^= state >> np.uint64(31)
    return state


def key_state(*key: object) -> np.uint64:
    """Where the stream of a key begins."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def row_states(sequences: Sequence[int], *key: object) -> UInt64Array:
    """Where the stream of each sequence begins: functions of the key and its global number, shape [B]."""
    return splitmix64(key_state(*key) + (np.asarray(sequences, dtype=np.uint64) + np.uint64(1)) * GOLDEN)


def uniform(states: UInt64Array, counters: NDArray[Any]) -> NDArray[np.float64]:
    """Numbers from [0, 1), 53 bits each: number `counters`, from 0 on, of the streams that begin at `states`.

    The shapes are broadcast.
    """
    numbers = splitmix64(states + (counters.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return (numbers >> np.uint64(11)).astype(np.float64) * 2.0**-53
