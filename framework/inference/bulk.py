"""Rows of a file continued: JSON lines in, the same rows with their completion out, gone on with where it was ended.

The output is a record of what is done: it has the rows of the input in their order, so the number of its lines tells
where to go on, and each of them is held against the input. Beside it lies `OUTPUT.settings.json`, for what is written
with one model and one way of writing has to go on with them.
"""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from framework.config import GenerateConfig, ModelConfig
from framework.errors import UserError
from framework.files import read_lines
from framework.inference.completion import Completion
from framework.inference.decoder import check_request
from framework.inference.generation import load
from framework.inference.postprocess import Postprocess
from framework.inference.prompts import Prompts
from framework.inference.request import Request
from framework.inference.settings import completions, request_of, sampling_of
from framework.model.identity import digest_of
from framework.model.tokenizer import Tokenizer

FIELD = "completion"  # of a row of the output, which has all fields of the input's beside
# what the texts do not depend on, but for rounding
_FREE = {"prompt", "prompts", "input", "output", "interactive", "echo", "system", "batch", "positions"}
_FREE |= {"prefill_tokens", "model"}

PROGRESS_SECONDS = 10

Row = dict[str, Any]


def complete_file(config: GenerateConfig) -> int:
    """Continue the rows of `config.input` that `config.output` has not yet; returns how many those were.

    Raises UserError naming file and line of a row that cannot be continued, before any is; and where the output was
    written with other settings, or from another input.
    """
    judge = Postprocess(config.postprocess)
    sampling_of(config)
    model, tokenizer = load(config.model.path)
    prompts = Prompts(Path(config.model.path), tokenizer, config.template)
    count, longest = _looked_through(config, prompts, model.config)
    with _held(Path(config.output)) as output:  # not before all else is in order, so that a refusal leaves no file
        _check_settings(config, output)
        done = _check_rows(config, output)
        asked: dict[int, Row] = {}
        found = completions(config, model, tokenizer, _requests(config, prompts, done, asked), judge, longest)
        tell = _progress(config.output, done, count)
        for number, completion in enumerate(found, start=done):
            if completion.failed is not None and config.failed == "stop":
                raise UserError(f"{config.input} row {number + 1}: {completion.failed}; failed=mark goes on")
            output.write(_line(asked.pop(number) | {FIELD: described(completion, tokenizer)}))
            output.flush()
            tell(number + 1)
        return count - done


def _requests(
    config: GenerateConfig, prompts: Prompts, done: int, asked: dict[int, Row]
) -> Iterator[tuple[int, Request]]:
    """Number and request of each row that is not done; the row itself goes into `asked`."""
    for number, _, row in islice(_rows(config.input), done, None):
        asked[number] = row
        yield number, request_of(config, prompts.of_row(row))


def _progress(name: str, done: int, count: int) -> Callable[[int], None]:
    """What says now and then how many rows there are of all, and how many come in a second."""
    begun = told = time.monotonic()

    def tell(rows: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now > told + PROGRESS_SECONDS:
            told, rate = now, (rows - done) / (now - begun)
            print(f"{name}: {rows} of {count} rows, {rate:.2f} a second", file=sys.stderr, flush=True)

    return tell


def described(completion: Completion, tokenizer: Tokenizer) -> Row:
    """A completion as it stands in a row."""
    found: Row = {"text": completion.text, "finish": completion.finish, "tokens": len(completion.tokens)}
    if completion.failed is not None:
        found["failed"] = completion.failed
    if completion.attempts > 1:
        found["attempts"] = completion.attempts
    if completion.likelihoods:
        found["log_probabilities"] = [
            {
                **_of_token(tokenizer, token, likelihood.log_probability),
                "alternatives": [_of_token(tokenizer, *pair) for pair in likelihood.alternatives],
            }
            for token, likelihood in zip(completion.tokens, completion.likelihoods, strict=True)
        ]
    return found


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token as text; bytes that are part of a character become U+FFFD."""
    return tokenizer.piece(token).decode("utf-8", errors="replace")


def _of_token(tokenizer: Tokenizer, token: int, log_probability: float) -> Row:
    return {"token": spelled(tokenizer, token), "id": token, "log_probability": log_probability}


def _rows(location: str) -> Iterator[tuple[int, int, Row]]:
    """Number of each row from 0, of its line from 1, and the row; empty lines are none."""
    number = 0
    for line, text in read_lines(location):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{location} line {line}: is no JSON ({error}); mend or remove it") from error
        if not isinstance(row, dict):
            raise UserError(f'{location} line {line}: is no JSON object; write {{"prompt": "..."}}')
        if FIELD in row:
            raise UserError(f"{location} line {line}: has a field {FIELD} already; rename it, ours would replace it")
        yield number, line, row
        number += 1


def _looked_through(config: GenerateConfig, prompts: Prompts, model: ModelConfig) -> tuple[int, int]:
    """How many rows there are, and the positions of the longest with its continuation.

    Raises UserError naming the line of one that cannot be continued.
    """
    count, longest = 0, 1
    for _, line, row in _rows(config.input):
        try:
            request = request_of(config, prompts.of_row(row))
            check_request(request, model, config.positions or sys.maxsize)
        except UserError as error:
            raise UserError(f"{config.input} line {line}: {error}") from error
        count += 1
        longest = max(longest, len(request.tokens) + request.maximum_tokens - 1)
    return count, longest


def _line(row: Row) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell and UTF-8 cannot
        return json.dumps(row).encode() + b"\n"


# ------------------------------------------------------------------------------------- going on


@contextmanager
def _held(path: Path) -> Iterator[BinaryIO]:
    """The output, open for reading and writing by this process alone."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
    except OSError as error:
        raise UserError(f"output: cannot write {path}: {error.strerror}; choose another") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"output: another process writes {path}; wait for it, or choose another") from error
        yield file


def _check_settings(config: GenerateConfig, output: BinaryIO) -> None:
    """Keep the settings of an output that is begun; raise UserError where one was begun with others."""
    path = Path(f"{config.output}.settings.json")
    now = _settings(config)
    if os.fstat(output.fileno()).st_size == 0:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"output: {config.output} is not empty, and {path} does not tell how it was written; choose another"
        ) from error
    for name in sorted(now.keys() | before.keys()):
        if now.get(name) != before.get(name):
            raise UserError(
                f"{name}: {config.output} was begun with {before.get(name)}, and now it is {now.get(name)}; "
                "set it back, or choose another output"
            )


def _settings(config: GenerateConfig) -> dict[str, Any]:
    """All that the texts depend on, but the rows."""
    found = {name: value for name, value in asdict(config).items() if name not in _FREE}
    files = [hook.json_schema for hook in config.postprocess] + [config.template]
    found["files"] = {name: sha256(Path(name).read_bytes()).hexdigest() for name in files if Path(name).is_file()}
    return found | {"model": digest_of(Path(config.model.path))}


def _check_rows(config: GenerateConfig, output: BinaryIO) -> int:
    """How many rows are done, after what a kill left of another was cut off; the file then stands at its end.

    Raises UserError where they are not those of the input.
    """
    rows = _rows(config.input)
    done = end = 0
    for line in output:
        row = _done_row(line)
        if row is None:
            if output.read(1):
                raise UserError(f"{config.output} line {done + 1}: is damaged; remove it and all after it")
            break
        _, number, expected = next(rows, (0, 0, None))
        if expected is None or _line(row) != _line(expected):
            raise UserError(
                f"{config.output} line {done + 1}: is not of "
                + (f"{config.input} line {number}" if expected is not None else f"{config.input}, which has fewer rows")
                + "; take the input that it was begun with, or choose another output"
            )
        done, end = done + 1, end + len(line)
    output.seek(end)
    output.truncate()
    return done


def _done_row(line: bytes) -> Row | None:
    """The row of the input in a line of the output; None for one that is damaged."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or FIELD not in row:
        return None
    del row[FIELD]
    return row
