"""Text to ids and back, from the tokenizer files of a model directory.

SentencePiece's `tokenizer.model` is read where there is one; imported directories that have only
`tokenizer.json` (GPT-2, Llama 3, Qwen3) are read by the `tokenizers` library, which comes with
`transformers`. Each id stands for bytes, so that a stream of ids becomes a stream of characters without
decoding the whole text at every step.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError

END_OF_TEXT = "<|endoftext|>"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True, slots=True)
class Encoding:
    """Ids of a text, int32 [tokens], and the characters that each stands for, int64 [tokens, 2], the end excluded.

    Ids that share a character, as those of the bytes of one, each have the whole of it.
    """

    ids: NDArray[np.int32]
    characters: NDArray[np.int64]


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
    def encode_whole(self, texts: Sequence[tuple[str, str | None]], maximum: int | None = None) -> list[list[int]]:
        """Ids of texts, or pairs of them, with all that opens, parts and ends them; at most `maximum` of each.

        They are those of `AutoTokenizer` of the directory, and for a tokenizer of Loam's those of one that was
        written with `TextForm.judges_texts`. Two texts that the tokenizer does not part are parted by a line end.
        """

    @abstractmethod
    def encode_controlled(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids of texts in which what spells a reserved piece is that piece, as in a conversation that was rendered."""

    @abstractmethod
    def encode_spelled(self, text: str) -> list[int]:
        """Ids of what spells a reserved piece and is text all the same; none of them is reserved."""

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
            self.file, self.processor = file, SentencePieceProcessor(model_file=str(file))
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

    def encode_whole(self, texts: Sequence[tuple[str, str | None]], maximum: int | None = None) -> list[list[int]]:
        """See `Tokenizer.encode_whole`."""
        begin = [] if self.begin is None else [self.begin]
        joined = self.processor.encode([text if pair is None else f"{text}\n{pair}" for text, pair in texts])
        return [(begin + ids)[:maximum] for ids in joined]

    def encode_spelled(self, text: str) -> list[int]:
        """See `Tokenizer.encode_spelled`; no text becomes a control symbol here."""
        return self.processor.encode(text)

    def encode_controlled(self, texts: Sequence[str]) -> list[Encoding]:
        """See `Tokenizer.encode_controlled`. Raises UserError for a model that changes the text that it reads."""
        parts = [self._control.split(text) for text in texts]  # text, symbol, text, ..., text
        ids = iter(self.processor.encode([part for found in parts for part in found[::2]]))
        return [self._joined(found, [next(ids) for _ in found[::2]]) for found in parts]

    def _joined(self, parts: list[str], texts_ids: list[list[int]]) -> Encoding:
        symbols = [[self.processor.piece_to_id(part)] for part in parts[1::2]]
        ids = [*chain.from_iterable(chain.from_iterable(zip_longest(texts_ids, symbols, fillvalue=())))]
        return Encoding(np.array(ids, np.int32), self._characters("".join(parts), ids))

    def _characters(self, text: str, ids: list[int]) -> NDArray[np.int64]:
        """Which characters the ids of a text stand for, as `Encoding` has them: their bytes, counted."""
        stops = np.cumsum(self._bytes_of_pieces[ids]) if ids else np.zeros(0, np.int64)
        codes = np.frombuffer(text.replace(" ", "\u2581").encode("utf-32-le"), np.uint32)  # as SentencePiece has it
        ends = np.cumsum(1 + (codes >= 0x80) + (codes >= 0x800) + (codes >= 0x10000))  # of characters, in bytes
        if stops[-1:].tolist() != ends[-1:].tolist():
            raise UserError(
                f"{self.file}: changes the text that it reads, so that its tokens cannot be found there; give a "
                "directory with tokenizer.json too, which transformers' save_pretrained writes"
            )
        first = np.searchsorted(ends, stops - self._bytes_of_pieces[ids], side="right")
        return np.stack([first, np.searchsorted(ends, stops, side="left") + 1], axis=1)

    @cached_property
    def _bytes_of_pieces(self) -> NDArray[np.int64]:
        pieces = [self.processor.id_to_piece(token) for token in range(self.size)]
        return np.array([1 if _BYTE_PIECE.fullmatch(piece) else len(piece.encode()) for piece in pieces], np.int64)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return _any_of(self.reserved)

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
        self._tokenizer.no_truncation()  # transformers ignores what the file says of either
        self._tokenizer.no_padding()
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

    def encode_whole(self, texts: Sequence[tuple[str, str | None]], maximum: int | None = None) -> list[list[int]]:
        """See `Tokenizer.encode_whole`. A special token that a text spells is one, as in transformers."""
        form = self._tokenizer.post_processor
        parts_pairs = form is not None and form.num_special_tokens_to_add(True) > form.num_special_tokens_to_add(False)
        inputs = [text if pair is None else (text, pair) if parts_pairs else f"{text}\n{pair}" for text, pair in texts]
        if maximum is not None:
            self._tokenizer.enable_truncation(maximum)
        found = [one.ids for one in self._tokenizer.encode_batch(inputs)]
        self._tokenizer.no_truncation()
        return found

    def encode_controlled(self, texts: Sequence[str]) -> list[Encoding]:
        """See `Tokenizer.encode_controlled`."""
        return [
            Encoding(np.array(one.ids, np.int32), np.array(one.offsets, np.int64).reshape(-1, 2))
            for one in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        ]

    def encode_spelled(self, text: str) -> list[int]:
        """See `Tokenizer.encode_spelled`; the steps of `encode` but the search for tokens that stand for themselves."""
        steps = self._tokenizer
        text = steps.normalizer.normalize_str(text) if steps.normalizer else text
        words = steps.pre_tokenizer.pre_tokenize_str(text) if steps.pre_tokenizer else [(text, None)]
        return [token.id for word, _ in words for token in steps.model.tokenize(word)]

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
        if (file.parent / "adapter_config.json").exists():
            problem = f"{file.parent}: is an adapter, which needs its base; give the model directory merged of the two,"
            raise UserError(f"{problem} which fine-tuning hands over beside it") from error
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


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds one of the texts, the longest first, as its only group."""
    return re.compile("(" + ("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)") + ")")


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
