"""The tokenizer files of a model directory, such that `transformers.AutoTokenizer` agrees with SentencePiece."""

import importlib.util
import json
import random
import shutil
from pathlib import Path
from typing import Any

from framework.errors import UserError
from framework.model.tokenizer import END_OF_TEXT, SentencePieceTokenizer, Tokenizer, load_tokenizer, read_json
from framework.model.unigram import is_unigram, tokenizer_json

PADDING = "<|pad|>"
MASK = "<|mask|>"
FIRST_RESERVED = (END_OF_TEXT, PADDING, "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")  # of every tokenizer
RESERVED = (*FIRST_RESERVED, "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", MASK)  # the rest came later
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
    """Put the tokenizer of `source` into a model directory; return its bos, eos, pad and mask ids by their keys.

    `source`: a `tokenizer.model` of Loam's, or a directory that holds nothing but that, or a model directory
    of any origin, whose files are copied as they are. Raises UserError where there is no such tokenizer.
    """
    if source.is_dir() and any((source / name).exists() for name in ("tokenizer_config.json", "tokenizer.json")):
        tokenizer = load_tokenizer(source)
        for name in _COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, directory / name)
    else:
        tokenizer = _write_sentencepiece(source / "tokenizer.model" if source.is_dir() else source, directory)
    ids = {"bos_token_id": tokenizer.begin, "eos_token_id": min(tokenizer.end, default=None)}
    own = tokenizer if isinstance(tokenizer, SentencePieceTokenizer) else None
    ids["pad_token_id"] = own.control(PADDING) if own else None
    ids["mask_token_id"] = own.control(MASK) if own else None
    for name in ("config.json", "generation_config.json"):  # what an imported model says of itself goes first
        if (source / name).exists():
            ids |= {key: value for key, value in read_json(source / name).items() if key in ids}
    return ids


def open_own(model_file: Path, directory: Path) -> SentencePieceTokenizer:
    """A SentencePiece model of Loam's, which has the first reserved symbols; raises UserError where one lacks."""
    tokenizer = SentencePieceTokenizer(model_file, directory)
    missing = [symbol for symbol in FIRST_RESERVED if tokenizer.control(symbol) is None]
    if missing:
        raise UserError(
            f"{model_file}: lacks the control symbol {missing[0]} and so is none of Loam's; "
            "give a directory that has its tokenizer_config.json too"
        )
    return tokenizer


def _write_sentencepiece(model_file: Path, directory: Path) -> SentencePieceTokenizer:
    """The SentencePiece model, the settings that make transformers' tokenizer equal to it, and `tokenizer.json`.

    That of a BPE is built by `LlamaTokenizer` from the settings, where `transformers` is installed.
    """
    tokenizer = open_own(model_file, directory)
    shutil.copyfile(model_file, directory / "tokenizer.model")
    symbols = [symbol for symbol in RESERVED if tokenizer.control(symbol) is not None]
    unigram = is_unigram(tokenizer.processor)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast" if unigram else "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": False,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "unk_token": "<unk>",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PADDING,
        **({"mask_token": MASK} if MASK in symbols else {}),
        "additional_special_tokens": [symbol for symbol in symbols if symbol not in (END_OF_TEXT, PADDING, MASK)],
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if unigram:
        content = json.dumps(tokenizer_json(tokenizer.processor), ensure_ascii=False)
        (directory / "tokenizer.json").write_text(content, encoding="utf-8")
    elif importlib.util.find_spec("transformers"):
        from transformers import AutoTokenizer

        AutoTokenizer.from_pretrained(directory).backend_tokenizer.save(str(directory / "tokenizer.json"))
    return tokenizer


def check_tokenizer_files(directory: Path) -> None:
    """Hold what `transformers` reads from a whole model directory against SentencePiece.

    Which class it takes depends on `config.json` too, so that must be there. Only tokenizers of Loam's are
    held to this: those of others may add a space or a token of their own. Raises UserError at the first
    text that becomes other ids, or does not come back.
    """
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(directory)
    if not isinstance(tokenizer, SentencePieceTokenizer) or tokenizer.control(END_OF_TEXT) is None:
        return
    theirs = AutoTokenizer.from_pretrained(directory)
    for text in _sample_texts(tokenizer):
        ids = tokenizer.encode(text)
        if theirs.encode(text) != ids or theirs.decode(ids) != text:
            raise UserError(
                f"tokenizer.model: transformers reads {text!r} as other ids than SentencePiece; "
                "train the tokenizer with framework.prepare"
            )


def same_tokenizer(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have the same pieces and cut random text alike."""
    return (
        (one.size, one.begin) == (other.size, other.begin)
        and all(one.piece(token) == other.piece(token) for token in range(one.size))
        and all(one.encode(text) == other.encode(text) for text in _sample_texts(one))
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
