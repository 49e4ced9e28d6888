"""Fourth stage: a SentencePiece tokenizer, trained on the text shards of all corpora."""

import io
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framework.checks import require
from framework.config import TokenizerConfig
from framework.corpus import foreign
from framework.corpus.stages import Facts
from framework.corpus.tokenizer_sample import LONGEST_SENTENCE, Source, draw_sentences
from framework.corpus.unigram import with_exact_scores
from framework.errors import UserError

MODEL = "tokenizer.model"
END_OF_TEXT = "<|endoftext|>"  # opens every document and so closes the one before
PAD = "<|pad|>"
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
INFILLING = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")  # Bavarian et al. 2022, arXiv:2207.14255
MASK = "<|mask|>"  # Devlin et al. 2018, arXiv:1810.04805
FIRST_RESERVED = ("<unk>", END_OF_TEXT, PAD, *CHAT)  # of every tokenizer
RESERVED = (*FIRST_RESERVED, *INFILLING, MASK)  # in the order of their ids, from 0 on; the rest came later

# Written into the model, and unigram adds up its probabilities thread by thread: it must not follow the machine.
_THREADS = 16
# Memory that SentencePiece takes for each byte of the sample, as benchmarks/tokenizer.py measured it on real text.
_MEMORY_PER_BYTE = {"bpe": 20, "unigram": 25}


def train_tokenizer(directory: Path, config: TokenizerConfig, sources: Iterable[Source]) -> Facts:
    """Train `tokenizer.model` in `directory`. The same texts and settings give the same bytes on any machine.

    The reserved pieces are control symbols: text never encodes to them, not even text that spells
    them out. Ids: 0 unknown (never arises, for every byte is a piece), 1 `<|endoftext|>`, 2 `<|pad|>`,
    3 to 6 the chat symbols, 7 to 9 those of filling in the middle, 10 `<|mask|>`, then newline, the 256 bytes, and
    the learned pieces.

    Args:
        directory: where the model goes.
        config: algorithm, size of the vocabulary, and the seed of the sample.
        sources: the corpora, and how much of each is in the sample.

    Returns:
        `vocabulary_size`, `end_of_text` (an id) and `reserved` (the id of each piece that text never becomes).

    Raises:
        UserError: the text does not support a vocabulary of this size, or there is not the memory for the sample.
    """
    import sentencepiece

    sources = list(sources)
    _require_memory(config.algorithm, sum(source.wanted for source in sources))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=draw_sentences(sources, config.seed),
            model_writer=model,
            model_type=config.algorithm,
            vocab_size=config.vocabulary_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            user_defined_symbols=["\n"],
            control_symbols=[*CHAT, *INFILLING, MASK],
            unk_id=0,
            bos_id=-1,
            eos_id=1,
            eos_piece=END_OF_TEXT,
            pad_id=2,
            pad_piece=PAD,
            max_sentence_length=LONGEST_SENTENCE,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _refusal(config, str(error)) from error
    exact = with_exact_scores(model.getvalue()) if config.algorithm == "unigram" else model.getvalue()
    (directory / MODEL).write_bytes(exact)
    return _facts(directory)


def find_tokenizer(path: Path) -> Path:
    """The file that `tokenizer.path` means: itself, or that of a model directory.

    Of the two that a directory may have, `tokenizer.model` counts where it is one of Loam's, else `tokenizer.json`.

    Raises:
        UserError: there is none that can be taken.
    """
    if not path.is_dir():
        return path
    own, other = path / MODEL, path / foreign.MODEL
    if own.exists() and (not other.exists() or _lacking(own) is None):
        return own
    if not other.exists():
        raise UserError(f"tokenizer.path: {path} has neither {MODEL} nor {foreign.MODEL}; give a model directory")
    return other


def take_tokenizer(directory: Path, file: Path) -> Facts:
    """Put a `tokenizer.model` that `train_tokenizer` made into `directory`, or the `tokenizer.json` of any model.

    See `train_tokenizer` and `foreign.take_foreign` for what comes back.

    Raises:
        UserError: it is none, or a SentencePiece model of others, whose settings lie elsewhere.
    """
    if file.suffix == ".json":
        return foreign.take_foreign(directory, file)
    lacking = _lacking(file)
    if lacking is not None:
        raise UserError(
            f"tokenizer.path: {file} has not the reserved piece {lacking} in its place, and so is none of Loam's; give "
            "a directory with its tokenizer.json, which AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained("
            "DIRECTORY) of transformers writes"
        )
    shutil.copyfile(file, directory / MODEL)
    return _facts(directory)


def _lacking(file: Path) -> str | None:
    """The first reserved piece that a SentencePiece model has not in its place; none in one of Loam's."""
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"tokenizer.path: {file} is no SentencePiece model ({error}); give a tokenizer.model"
        ) from error
    return next((piece for number, piece in enumerate(FIRST_RESERVED) if processor.piece_to_id(piece) != number), None)


def _facts(directory: Path) -> Facts:
    processor = load_tokenizer(directory)
    return {
        "vocabulary_size": processor.vocab_size(),
        "end_of_text": processor.eos_id(),
        "reserved": {piece: number for number, piece in enumerate(RESERVED) if processor.piece_to_id(piece) == number},
    }


def _refusal(config: TokenizerConfig, reason: str) -> UserError:
    """What SentencePiece says, to the user: mostly that there are not so many pieces in the text."""
    most = re.search(r"<= (\d+)", reason)
    if most is None:
        words = " ".join(reason.split())
        return UserError(
            f"tokenizer.vocabulary_size: {config.vocabulary_size} does not suit this text ({words}); change it"
        )
    return UserError(
        f"tokenizer.vocabulary_size: {config.vocabulary_size} does not suit this text; it has pieces for "
        f"{most[1]} at most: lower it, raise tokenizer.sample_bytes, or add text"
    )


def _require_memory(algorithm: str, sample_bytes: int) -> None:
    """Refuse a sample that real text would not let this machine train on."""
    there_is, per_byte = physical_memory(), _MEMORY_PER_BYTE[algorithm]
    require(
        sample_bytes * per_byte <= there_is,
        "tokenizer.sample_bytes",
        f"{algorithm} takes about {per_byte} bytes of memory for each of {sample_bytes:,}, "
        f"and there are {there_is / 1e9:.1f} GB",
        f"give {there_is // per_byte // 1_000_000 * 1_000_000:,}",
    )


def physical_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or fewer where its control group has a limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def load_tokenizer(directory: Path) -> Any:
    """The `SentencePieceProcessor` of a tokenizer directory, or the `ForeignTokenizer`."""
    import sentencepiece

    if not (directory / MODEL).exists():
        return foreign.ForeignTokenizer(directory)

    return sentencepiece.SentencePieceProcessor(model_file=str(directory / MODEL))
