"""Second stage: a SentencePiece tokenizer, trained on the text shards of all corpora."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framework.config import TokenizerConfig
from framework.corpus.shards import read_texts
from framework.corpus.stages import Facts
from framework.errors import UserError

MODEL = "tokenizer.model"
END_OF_TEXT = "<|endoftext|>"  # opens every document and so closes the one before
PAD = "<|pad|>"
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
INFILLING = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")  # Bavarian et al. 2022, arXiv:2207.14255
MASK = "<|mask|>"  # Devlin et al. 2018, arXiv:1810.04805
RESERVED = ("<unk>", END_OF_TEXT, PAD, *CHAT, *INFILLING, MASK)  # in the order of their ids, from 0 on

_LONGEST_SENTENCE = 4096  # bytes; SentencePiece leaves longer ones out


def train_tokenizer(directory: Path, config: TokenizerConfig, shards: list[Path], total_bytes: int) -> Facts:
    """Train `tokenizer.model` in `directory`. The same shards and settings give the same bytes.

    The reserved pieces are control symbols: text never encodes to them, not even text that spells
    them out. Ids: 0 unknown (never arises, for every byte is a piece), 1 `<|endoftext|>`, 2 `<|pad|>`,
    3 to 6 the chat symbols, 7 to 9 those of filling in the middle, 10 `<|mask|>`, then newline, the 256 bytes, and
    the learned pieces.

    Args:
        directory: where the model goes.
        config: size of the vocabulary, and of the sample it is learned from.
        shards: text shards of the training split.
        total_bytes: of text in them.

    Returns:
        `vocabulary_size`, `end_of_text` (an id) and `reserved` (the id of each piece that text never becomes).

    Raises:
        UserError: the text does not support a vocabulary of this size.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_sentences(_sample(shards, config, total_bytes)),
            model_writer=model,
            model_type="bpe",
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
            max_sentence_length=_LONGEST_SENTENCE,
            num_threads=1,  # it is written into the model, so it must not follow the machine
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).replace("\n", " ").strip()
        raise UserError(
            f"tokenizer.vocabulary_size: {config.vocabulary_size} does not suit this text ({reason}); change it"
        ) from error
    (directory / MODEL).write_bytes(model.getvalue())
    processor = load_tokenizer(directory)
    return {
        "vocabulary_size": processor.vocab_size(),
        "end_of_text": processor.eos_id(),
        "reserved": {piece: processor.piece_to_id(piece) for piece in RESERVED},
    }


def load_tokenizer(directory: Path) -> Any:
    """The `SentencePieceProcessor` of a tokenizer directory."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(directory / MODEL))


def _sample(shards: list[Path], config: TokenizerConfig, total_bytes: int) -> Iterator[str]:
    """Documents drawn evenly from all shards, `config.sample_bytes` of text at most."""
    share = min(1.0, config.sample_bytes / total_bytes)
    left = config.sample_bytes
    for path in shards:
        for text in read_texts(path):
            encoded = text.encode()
            lot = hashlib.sha256(f"{config.seed}:".encode() + encoded).digest()
            if int.from_bytes(lot[:8]) < share * 2**64 and len(encoded) <= left:
                left -= len(encoded)
                yield text


def _sentences(texts: Iterator[str]) -> Iterator[str]:
    """The lines of the texts, long ones in parts.

    A part ends before a space, where no piece can reach across: a piece has spaces at its start only.
    """
    limit = _LONGEST_SENTENCE // 4  # characters: none has more than 4 bytes
    for text in texts:
        for line in text.split("\n"):
            while len(line) > limit:
                cut = line.rfind(" ", 1, limit)
                cut = cut if cut > 0 else limit
                yield line[:cut]
                line = line[cut:]
            if line:
                yield line
