"""The tokenizer files of a model directory, such that `transformers.AutoTokenizer` agrees with SentencePiece."""

import importlib.util
import json
import random
import shutil
from pathlib import Path
from typing import Any

from framework.errors import UserError
from framework.model.tokenizer import END_OF_TEXT, SentencePieceTokenizer, Tokenizer, load_tokenizer, read_json

PADDING = "<|pad|>"
RESERVED = (END_OF_TEXT, PADDING, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_COPIED = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def write_tokenizer_files(source: Path, directory: Path) -> dict[str, Any]:
    """Put the tokenizer of `source` into a model directory; return its bos, eos and pad token ids by their keys.

    `source`: a `tokenizer.model` of Loam's, or a directory that holds nothing but that, or a model directory
    of any origin, whose files are copied as they are. Raises UserError where there is no tokenizer, or where
    `transformers`, if installed, would not give the ids that SentencePiece gives.
    """
    if source.is_dir() and any((source / name).exists() for name in ("tokenizer_config.json", "tokenizer.json")):
        tokenizer = load_tokenizer(source)
        for name in _COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, directory / name)
    else:
        tokenizer = _write_sentencepiece(source / "tokenizer.model" if source.is_dir() else source, directory)
    ids = {"bos_token_id": tokenizer.begin, "eos_token_id": min(tokenizer.end, default=None), "pad_token_id": None}
    if isinstance(tokenizer, SentencePieceTokenizer):
        ids["pad_token_id"] = tokenizer.control(PADDING)
    for name in ("config.json", "generation_config.json"):  # what an imported model says of itself goes first
        if (source / name).exists():
            ids |= {key: value for key, value in read_json(source / name).items() if key in ids}
    return ids


def _write_sentencepiece(model_file: Path, directory: Path) -> SentencePieceTokenizer:
    """The SentencePiece model, the settings that make `LlamaTokenizer` equal to it, and, where `transformers`
    is installed, the `tokenizer.json` that it builds from them.
    """
    tokenizer = SentencePieceTokenizer(model_file, directory)
    shutil.copyfile(model_file, directory / "tokenizer.model")
    reserved = [symbol for symbol in RESERVED if tokenizer.control(symbol) is not None]
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "unk_token": "<unk>",
        "bos_token": END_OF_TEXT if END_OF_TEXT in reserved else None,
        "eos_token": END_OF_TEXT if END_OF_TEXT in reserved else None,
        "pad_token": PADDING if PADDING in reserved else None,
        "additional_special_tokens": [symbol for symbol in reserved if symbol not in (END_OF_TEXT, PADDING)],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if importlib.util.find_spec("transformers"):
        _write_json_tokenizer(tokenizer, model_file, directory)
    return tokenizer


def _write_json_tokenizer(tokenizer: Tokenizer, model_file: Path, directory: Path) -> None:
    """Let `transformers` build `tokenizer.json`, and hold what it then reads against SentencePiece."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(directory).backend_tokenizer.save(str(directory / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(directory)
    for text in _sample_texts(tokenizer):
        ids = tokenizer.encode(text)
        if theirs.encode(text) != ids or theirs.decode(ids) != text:
            raise UserError(
                f"{model_file}: transformers would read {text!r} as other ids than SentencePiece does; "
                "train the tokenizer with framework.prepare, or give the directory with its own tokenizer_config.json"
            )


def _sample_texts(tokenizer: Tokenizer, count: int = 200) -> list[str]:
    """Random runs of the tokenizer's own pieces, between spaces, digits, line ends and rare characters."""
    generator = random.Random(0)
    pieces = [
        piece for token in range(tokenizer.size) if (piece := tokenizer.decode([token])) and "\ufffd" not in piece
    ]
    pieces = [piece for piece in pieces if "<" not in piece]  # nothing may spell a reserved symbol
    pieces += [" ", "  ", "\n", "\t", "\r\n", "2024", "é", "日本", "\U0001f600", "\u2028", "\x00"] * (len(pieces) // 20)
    return ["".join(generator.choices(pieces, k=generator.randint(1, 30))) for _ in range(count)]
