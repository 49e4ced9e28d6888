"""Loam: a language model from raw text, on one laptop or sixty-four GPUs.

Importing this package loads neither torch nor any other heavy library; each room imports what it
needs where it needs it.
"""

__version__ = "0.1.0"
