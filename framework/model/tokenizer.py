"""Text to ids and back, from the tokenizer files of a model directory.

SentencePiece's `tokenizer.model` is read where there is one; imported directories that have only
`tokenizer.json` (GPT-2, Llama 3, Qwen3) are read by the `tokenizers` library, which comes with
`transformers`. Each id stands for bytes, so that a stream of ids becomes a stream of characters without
decoding the whole text at every step.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framework.errors import UserError

END_OF_TEXT = "<|endoftext|>"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


class Tokenizer(ABC):
    """`begin`: id that every document starts with, or None; `end`: ids that end a text; `size`: ids there are;
    `reserved`: the id of each piece that no text becomes.
    """

    begin: int | None
    end: frozenset[int]
    size: int

    @property
    @abstractmethod
    def reserved(self) -> dict[str, int]:
        """The id of each piece that no text becomes, as the data have it."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, without any that marks its begin or end."""

    @abstractmethod
    def piece(self, token: int) -> bytes:
        """The bytes an id stands for: UTF-8, perhaps a part of a character; none for a control symbol."""

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of the ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self.piece(token) for token in tokens).decode("utf-8", errors="replace")


class SentencePieceTokenizer(Tokenizer):
    """A `tokenizer.model`, read by `processor`; `directory` is where the model's json files would be."""

    def __init__(self, file: Path, directory: Path) -> None:
        from sentencepiece import SentencePieceProcessor

        try:
            self.processor = SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError) as error:
            raise UserError(f"{file}: is no SentencePiece model ({error}); copy the file anew") from error
        self.size = self.processor.get_piece_size()
        # Ours: one symbol opens a document and closes the one before. Others: the model's own pair, -1 for none.
        end_of_text = self.control(END_OF_TEXT)
        bos, eos = self.processor.bos_id(), self.processor.eos_id()
        self.begin = end_of_text if end_of_text is not None else bos if bos >= 0 else None
        own_end = end_of_text if end_of_text is not None else eos
        self.end = _end_ids(directory) | ({own_end} if own_end >= 0 else set())

    @property
    def reserved(self) -> dict[str, int]:
        """The id of each piece that no text becomes: control symbols and the unknown."""
        return {self.processor.id_to_piece(token): token for token in range(self.size) if self._is_reserved(token)}

    def control(self, symbol: str) -> int | None:
        """Id of a control symbol, or None where the model has none of that name."""
        token = self.processor.piece_to_id(symbol)
        return token if self.processor.is_control(token) else None

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self.processor.encode(text)

    def piece(self, token: int) -> bytes:
        """See `Tokenizer.piece`."""
        if token >= self.size or self._is_reserved(token):
            return b""
        return _sentencepiece_bytes(self.processor.id_to_piece(token))

    def _is_reserved(self, token: int) -> bool:
        return self.processor.is_control(token) or self.processor.is_unknown(token)


class JsonTokenizer(Tokenizer):
    """A `tokenizer.json`, byte-level (GPT-2, Llama 3, Qwen3) or converted from SentencePiece."""

    def __init__(self, file: Path, directory: Path) -> None:
        try:
            import tokenizers
        except ImportError as error:
            raise UserError(f"{file}: needs the tokenizers library; pip install 'loam[huggingface]'") from error
        try:
            text = file.read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
            description = json.loads(text)
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{file}: is no tokenizer ({error}); copy the file anew") from error
        self.size = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._added = {entry["id"]: entry for entry in description.get("added_tokens", [])}
        is_byte_level = '"ByteLevel"' in json.dumps(description.get("decoder"))
        self._to_bytes = _byte_level_bytes if is_byte_level else _sentencepiece_bytes
        settings_file = directory / "tokenizer_config.json"
        settings = read_json(settings_file) if settings_file.exists() else {}
        self.begin = self._id(settings.get("bos_token"))
        own_end = self._id(settings.get("eos_token"))
        self.end = _end_ids(directory) | ({own_end} if own_end is not None else set())

    @property
    def reserved(self) -> dict[str, int]:
        """The special tokens; `encode` still finds one that a text spells out, as a chat does."""
        return {entry["content"]: token for token, entry in self._added.items() if entry["special"]}

    def encode(self, text: str) -> list[int]:
        """See `Tokenizer.encode`."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def piece(self, token: int) -> bytes:
        """See `Tokenizer.piece`."""
        if token in self._added:
            entry = self._added[token]
            return b"" if entry["special"] else entry["content"].encode()
        text = self._tokenizer.id_to_token(token)
        return b"" if text is None else self._to_bytes(text)

    def _id(self, token: Any) -> int | None:
        """Id of a special token as tokenizer_config.json gives it: a string, an object with one, or null."""
        text = token.get("content") if isinstance(token, dict) else token
        return None if text is None else self._tokenizer.token_to_id(text)


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a directory, or the given `tokenizer.model` or `tokenizer.json`.

    Raises UserError naming the file that is missing, damaged, or in need of a library that is not installed.
    """
    if path.is_file():
        return (JsonTokenizer if path.suffix == ".json" else SentencePieceTokenizer)(path, path.parent)
    if (path / "tokenizer.model").exists():
        return SentencePieceTokenizer(path / "tokenizer.model", path)
    if (path / "tokenizer.json").exists():
        return JsonTokenizer(path / "tokenizer.json", path)
    raise UserError(f"{path}: has neither tokenizer.model nor tokenizer.json; give a directory with one of them")


def read_json(file: Path) -> dict[str, Any]:
    """A json object from a file. Raises UserError where it is missing or none."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file}: is missing; give a complete model directory") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{file}: is no readable json ({error}); copy the file anew") from error
    if not isinstance(data, dict):
        raise UserError(f"{file}: holds no json object; copy the file anew")
    return data


def _end_ids(directory: Path) -> frozenset[int]:
    """Ids at which the directory's own settings end a text; a chat model has more than its tokenizer says."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        if (directory / name).exists():
            value = read_json(directory / name).get("eos_token_id")
            found.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(found)


def _sentencepiece_bytes(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()


def _byte_level_bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF_CHARACTER[character] for character in piece)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2 writes each byte as one printable character: itself, or, in order, those from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_level_alphabet()
