"""A unigram model of SentencePiece as the `tokenizer.json` of Hugging Face's tokenizers library.

transformers 5 turns every `tokenizer.model` that it finds into a BPE, whatever it is, so the file is written here.
Both libraries look for the pieces with the greatest sum of scores; ours add up exactly in both, so ties are broken
alike.
"""

from typing import Any

SPACE = "\u2581"  # as SentencePiece writes it


def is_unigram(processor: Any) -> bool:
    """Whether a `SentencePieceProcessor` is no BPE, whose scores number the merges: 0, -1, -2, ..."""
    return any(processor.get_score(token) % 1 for token in range(processor.get_piece_size()))


def tokenizer_json(processor: Any) -> dict[str, Any]:
    """The content of `tokenizer.json`.

    Args:
        processor: a `SentencePieceProcessor` over a unigram model with byte fallback, without normalisation and
            without a space put before the text; digits stand alone.
    """
    tokens = range(processor.get_piece_size())
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(processor, token) for token in tokens if _is_special(processor, token)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        # Text that spells "<0x41>" is not to become the piece of that byte. No piece crosses the cut, as 0 is a digit.
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": processor.unk_id(),
            "vocab": [[processor.id_to_piece(token), processor.get_score(token)] for token in tokens],
            "byte_fallback": True,
        },
    }


def _is_special(processor: Any, token: int) -> bool:
    return processor.is_control(token) or processor.is_unknown(token)


def _special(processor: Any, token: int) -> dict[str, Any]:
    piece = processor.id_to_piece(token)
    matching = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token, "content": piece, **matching, "special": True}
