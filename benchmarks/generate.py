"""Tokens a second of generation: reading prompts and writing on, alone and side by side, beside transformers' own.

    python -m benchmarks.generate                                 # a Llama with random weights
    python -m benchmarks.generate --model DIRECTORY               # a model directory
    python -m benchmarks.generate --prompt 512 --tokens 128 --batches 1 8

Both have the same weights in the same process, on the same device, in the same dtype, and write greedily, each to the
same number of tokens; how many of them agree is printed. They take turns, and the median of the rounds counts.
Reading is the time that all prompts take with one token of each, writing what the other tokens take beyond it.
transformers is given prompts of one length in one batch, so that it pads nothing; Loam reads them one after another,
as it does those of different lengths, while it writes on the ones that it has read.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import accelerator, machine
from framework.inference.decoder import Decoder
from framework.inference.request import Request
from framework.inference.sampling import GREEDY
from framework.model.huggingface import assemble, read_model_directory
from framework.model.transformer import Transformer

SHAPE = {"vocab_size": 8192, "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8}
SHAPE |= {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 4096}
Prompts = list[list[int]]
Write = Callable[[Prompts, int], Prompts]


class Letters:
    """A tokenizer of which no token ends a text."""

    end = frozenset[int]()

    def piece(self, token: int) -> bytes:
        """One letter."""
        return b"x"


def loam(model: Transformer) -> Write:
    """Write with the decoder."""

    def write(prompts: Prompts, tokens: int) -> Prompts:
        letters: Any = Letters()
        decoder = Decoder(model, letters, rows=len(prompts), positions=len(prompts[0]) + tokens)
        written: dict[int, list[int]] = {
            decoder.submit(Request(tuple(prompt), tokens, GREEDY)): [] for prompt in prompts
        }
        while decoder.busy:
            for number, piece in decoder.step():
                written[number] += piece.tokens
        return list(written.values())

    return write


def transformers(model: Any) -> Write:
    """Write with transformers' `generate`."""
    model.generation_config.eos_token_id = None

    def write(prompts: Prompts, tokens: int) -> Prompts:
        ids = torch.tensor(prompts, device=model.device)
        mask = torch.ones_like(ids)
        found = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
        return found[:, ids.shape[1] :].tolist()

    return write


def seconds(write: Write, prompts: Prompts, tokens: int) -> tuple[float, Prompts]:
    """How long that takes, and what is written."""
    began = time.perf_counter()
    found = write(prompts, tokens)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def contestants(directory: Path) -> dict[str, Write]:
    """Both, with the model of a directory."""
    from transformers import AutoModelForCausalLM

    config, state, _ = read_model_directory(directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = state["embedding.weight"].dtype if torch.cuda.is_available() else torch.float32
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).to(device).eval()
    return {"loam": loam(assemble(config, state, dtype).to(device)), "transformers": transformers(theirs)}


def random_model(folder: str) -> Path:
    """A model directory with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.1)).save_pretrained(folder)
    return Path(folder)


def compare(writers: dict[str, Write], batch: int, prompt: int, tokens: int, rounds: int) -> None:
    """Print a row for each contestant, and what the first makes of the second's time."""
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, 1000, (batch, prompt), generator=generator).tolist()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    texts: dict[str, Prompts] = {}
    for write in writers.values():  # warm
        write(prompts, 2)
    for _ in range(rounds):
        for name, write in writers.items():
            reading, _ = seconds(write, prompts, 1)
            whole, texts[name] = seconds(write, prompts, tokens)
            taken[name].append((batch * prompt / reading, batch * (tokens - 1) / (whole - reading)))
    rates = {name: [statistics.median(side) for side in zip(*pairs, strict=True)] for name, pairs in taken.items()}
    for name, (reading, writing) in rates.items():
        print(f"{batch:5d}  {name:14s} {reading:12,.0f} {writing:12,.1f}")
    (ours, theirs), names = rates.values(), list(rates)
    pairs = zip(texts[names[0]], texts[names[1]], strict=True)
    same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=True))
    print(f"{'':5}  {'ratio':14s} {ours[0] / theirs[0]:12.2f} {ours[1] / theirs[1]:12.2f}", end="")
    print(f"   {same} of {batch * tokens} tokens the same", flush=True)


def main() -> None:
    """Compare at each batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model directory; without one random weights")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that are written after each")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(machine("torch", "transformers"))
    print(f"{accelerator()}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        writers = contestants(options.model or random_model(folder))
        print(
            f"prompts of {options.prompt} tokens, {options.tokens} written; tokens a second, median of {options.rounds}"
        )
        print(f"{'batch':5s}  {'':14s} {'reading':>12s} {'writing':>12s}")
        for batch in options.batches:
            compare(writers, batch, options.prompt, options.tokens, options.rounds)


if __name__ == "__main__":
    main()
