"""Which model a directory holds."""

import hashlib
from pathlib import Path

from framework.errors import UserError
from framework.model.weights import weight_files

_FILES = ("config.json", "generation_config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json")


def digest_of(directory: Path) -> str:
    """SHA-256 of all files that what a model says depends on. Raises UserError where one cannot be read."""
    present = [directory / name for name in _FILES if (directory / name).exists()]
    whole = hashlib.sha256()
    for file in [*present, *weight_files(directory)]:
        try:
            with file.open("rb") as content:
                whole.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}; give a complete model directory") from error
    return whole.hexdigest()
