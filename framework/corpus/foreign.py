"""Tokenizers of other models: a `tokenizer.json`, and what the files beside it say of its special tokens."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError

MODEL = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
IDS = "generation_config.json"


class ForeignTokenizer:
    """The `tokenizer.json` of a directory that `take_foreign` filled; `opens` is the id before each document."""

    def __init__(self, directory: Path) -> None:
        self._tokenizer = _open(directory / MODEL)
        self.opens = int(json.loads((directory / IDS).read_text(encoding="utf-8"))["bos_token_id"])

    def vocab_size(self) -> int:
        """One more than the greatest id."""
        return _size(self._tokenizer)

    def encode(self, texts: list[str]) -> list[NDArray[np.int32]]:
        """Ids of each text, as `transformers` gives them with `split_special_tokens` and without any added ones."""
        encoded = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, np.int32) for one in encoded]


def take_foreign(directory: Path, file: Path) -> dict[str, Any]:
    """Put a `tokenizer.json` and its settings into `directory`.

    Three files arise: `tokenizer.json` as it is; `tokenizer_config.json`, which takes up what only
    `special_tokens_map.json` and `chat_template.jinja` say; and `generation_config.json` with the ids of the
    directory's special tokens, of which `bos_token_id` is the one that opens documents.

    Returns:
        `vocabulary_size` (one more than the greatest id), `end_of_text` (the id that opens documents) and
        `reserved` (the ids of the special tokens).

    Raises:
        UserError: the file is no tokenizer, no token can open documents, or text may become a special one.
    """
    tokenizer = _open(file)
    reserved = {token.content: number for number, token in _added(tokenizer).items() if token.special}
    settings, ids = _settings(file.parent), _ids(file.parent)
    opens = _opens(file, reserved, settings, ids)
    _require_text_stays_text(file, tokenizer, reserved)
    shutil.copyfile(file, directory / MODEL)
    ids["bos_token_id"] = opens
    end = reserved.get(_content(settings.get("eos_token")))
    if end is not None:
        ids.setdefault("eos_token_id", end)
    for name, content in ((SETTINGS, settings), (IDS, ids)):
        (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"vocabulary_size": _size(tokenizer), "end_of_text": opens, "reserved": reserved}


def settings_of(file: Path) -> list[dict[str, Any]]:
    """What a directory says of its `tokenizer.json`: the inputs of `take_foreign` beside that file itself."""
    return [_settings(file.parent), _ids(file.parent)]


def _opens(file: Path, reserved: dict[str, int], settings: dict[str, Any], ids: dict[str, Any]) -> int:
    """The id of the token for the begin of a text; of that for its end where there is none, as GPT-2 had it.

    The tokenizer's own settings go first. Those of Qwen3 name no begin, and its `config.json` the `<|endoftext|>`
    between the documents it was trained on, which the end of a chat model's turn is not.
    """
    for name in ("bos", "eos"):
        by_name, by_id = reserved.get(_content(settings.get(f"{name}_token"))), ids.get(f"{name}_token_id")
        several = by_id if isinstance(by_id, list) else [by_id]
        found = [by_name, *(number for number in several if number in reserved.values())]
        for number in found:
            if number is not None:
                return int(number)
    raise UserError(
        f"tokenizer.path: no special token of {file} is said to begin or end a text; "
        f'name one as "bos_token" in {file.parent / SETTINGS}'
    )


def _require_text_stays_text(file: Path, tokenizer: Any, reserved: dict[str, int]) -> None:
    """A text that spells out a special token would end its document in the midst of it."""
    unknown = getattr(tokenizer.model, "unk_token", None)
    for token, number in reserved.items():
        texts = [token, f"a {token} b", f"a{token}b"]
        if token != unknown and any(number in one.ids for one in tokenizer.encode_batch(texts, False, False)):
            raise UserError(
                f"tokenizer.path: {file} turns a text that spells out {token} into that special token; "
                "take the tokenizer of another model"
            )


def _open(file: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise UserError(f"tokenizer.path: {file} needs the tokenizers library; pip install 'loam[corpus]'") from error
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads are those of `encoding`
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"tokenizer.path: {file} is no tokenizer ({error}); give a tokenizer.json") from error
    tokenizer.encode_special_tokens = True  # a special token that a text spells out is text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _size(tokenizer: Any) -> int:
    return int(max(tokenizer.get_vocab(with_added_tokens=True).values())) + 1


def _added(tokenizer: Any) -> dict[int, Any]:
    return dict(sorted(tokenizer.get_added_tokens_decoder().items()))


def _settings(directory: Path) -> dict[str, Any]:
    """The settings of the tokenizer, in one."""
    settings = _read(directory / "special_tokens_map.json") | _read(directory / SETTINGS)
    template = directory / "chat_template.jinja"
    if template.exists():
        settings["chat_template"] = template.read_text(encoding="utf-8")
    return settings


def _ids(directory: Path) -> dict[str, Any]:
    """The ids of special tokens that the model's own settings name."""
    said = _read(directory / "config.json") | _read(directory / IDS)
    return {
        f"{name}_token_id": said[f"{name}_token_id"] for name in ("bos", "eos", "pad") if f"{name}_token_id" in said
    }


def _read(file: Path) -> dict[str, Any]:
    """A json object; empty where there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise UserError(f"tokenizer.path: {file} is no readable json ({error}); copy the file anew") from error
    if not isinstance(content, dict):
        raise UserError(f"tokenizer.path: {file} holds no json object; copy the file anew")
    return content


def _content(token: Any) -> str:
    """The text of a token that is given as a string, as an object with one, or as null."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")
