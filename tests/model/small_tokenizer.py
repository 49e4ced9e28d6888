"""A small SentencePiece model with the options that the corpus stage trains with."""

import random
from functools import cache
from io import BytesIO
from pathlib import Path

WORDS = ["river", "stone", "the", "of", "grows", "tree", "Über", "naïve", "日本語", "мир", "loam", "soil"]
WORDS += ["12", "1999", "running", "jumped", "a", "is"]


CHAT = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
INFILLING = ["<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|mask|>"]
RESERVED = {piece: i for i, piece in enumerate(["<unk>", "<|endoftext|>", "<|pad|>", *CHAT, *INFILLING])}


@cache
def model_bytes(infilling: tuple[str, ...] = tuple(INFILLING)) -> bytes:
    """Without `infilling`: a tokenizer of before there was any."""
    import sentencepiece

    generator = random.Random(0)
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(" ".join(generator.choices(WORDS, k=20)) + "." for _ in range(500)),
        model_writer=model,
        model_type="bpe",
        vocab_size=360,
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n"],
        control_symbols=[*CHAT, *infilling],
        unk_id=0,
        bos_id=-1,
        eos_id=1,
        eos_piece="<|endoftext|>",
        pad_id=2,
        pad_piece="<|pad|>",
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def write(directory: Path, infilling: tuple[str, ...] = tuple(INFILLING)) -> Path:
    """Write `tokenizer.model` into a directory and return its path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.model").write_bytes(model_bytes(infilling))
    return directory / "tokenizer.model"


def texts(count: int = 300, seed: int = 0) -> list[str]:
    """Text with everything that tokenizers trip over, apart from U+2581 and spelled-out reserved symbols."""
    generator = random.Random(seed)
    parts = [*WORDS, " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "é", "e\u0301", "😀", "日", " the", "12345", "\x00"]
    parts += ["\u2028", "<", "|>", "<0x41>", ".", "'s", "\ufffd", "\u00a0", "#"]
    return ["", " ", "\n"] + ["".join(generator.choices(parts, k=generator.randint(1, 20))) for _ in range(count)]
