"""How much memory and time SentencePiece takes to learn a vocabulary, for each byte of the sample.

    python -m benchmarks.tokenizer                                     # the samples; made-up words
    python -m benchmarks.tokenizer --text '/usr/lib/python3*/**/*.py' --megabytes 10 100 --vocabulary 131072

Each model is trained by `framework.corpus.tokenizer` in a process of its own; printed are its seconds, its peak of
memory, and that peak over the bytes of the sample, without what the process had before. Made-up words, in which
hardly one comes twice, take more than any real text.
"""

import argparse
import glob
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import machine
from framework.config import TokenizerConfig
from framework.corpus.shards import ShardWriter, encode_text, read_texts
from framework.corpus.tokenizer import train_tokenizer
from framework.corpus.tokenizer_sample import Source


def made_up() -> Iterator[str]:
    """Documents of words of eight random letters, without end."""
    chance = random.Random(0)
    while True:
        yield " ".join("".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(1_000))


def write_shard(folder: Path, texts: Iterator[str], size: int) -> int:
    """A text shard with `size` bytes of the texts, or all there are; how many."""
    left = size
    with ShardWriter(folder, "train", 1 << 40) as writer:
        for number, text in enumerate(texts):
            part = text.encode()[:left].decode(errors="ignore")
            writer.write(f"{number:09d}", encode_text(part, {}))
            left -= len(part.encode())
            if left < 4:
                break
    return size - left


def train(folder: Path, algorithm: str, vocabulary: int, size: int) -> None:
    """Train on the shard in a folder, and print what that took."""
    before, started = _memory("VmRSS"), time.perf_counter()
    config = TokenizerConfig(algorithm=algorithm, vocabulary_size=vocabulary)
    train_tokenizer(folder, config, [Source(sorted(folder.glob("train-*.tar")), size)])
    spent, peak = time.perf_counter() - started, _memory("VmHWM")
    each = (peak - before) * 1024 / size
    print(f"{spent:7.1f} s {peak / 1024:8,.0f} MiB {each:6.1f} bytes a byte of the sample", flush=True)


def _memory(field: str) -> int:
    """KiB of this process; `getrusage` would count what the process that started it has held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{field}:")[2].split()[0])


def main() -> None:
    """Print a line for each text, size and algorithm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="plain text files, a glob pattern; else the samples, and made-up words")
    parser.add_argument("--samples", default="data/samples/text", help="what prepare made of the samples")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--vocabulary", type=int, default=16_384)
    parser.add_argument("--algorithms", nargs="+", default=["bpe", "unigram"])
    parser.add_argument("--train", nargs=4, help=argparse.SUPPRESS)  # what a process of its own does
    arguments = parser.parse_args()
    if arguments.train:
        folder, algorithm, vocabulary, size = arguments.train
        train(Path(folder), algorithm, int(vocabulary), int(size))
        return
    print(machine("sentencepiece"), flush=True)
    for name, texts in _texts(arguments.text, arguments.samples).items():
        for megabytes in arguments.megabytes:
            with tempfile.TemporaryDirectory(prefix="loam-benchmark-") as folder:
                size = write_shard(Path(folder), texts(), megabytes * 1_000_000)
                for algorithm in arguments.algorithms:
                    # a unigram of made-up words has no more pieces than this to choose from
                    vocabulary = 2_000 if name == "made-up" and algorithm == "unigram" else arguments.vocabulary
                    label = f"{name:<8} {size / 1e6:5.0f} MB {algorithm:<8} {vocabulary:7,}"
                    print(label, end=" ", flush=True)
                    command = ["--train", folder, algorithm, str(vocabulary), str(size)]
                    subprocess.run([sys.executable, "-m", "benchmarks.tokenizer", *command], check=True)


def _texts(pattern: str | None, samples: str) -> dict:
    if pattern:
        files = sorted(glob.glob(pattern, recursive=True))
        random.Random(0).shuffle(files)
        return {"files": lambda: (Path(file).read_text(errors="ignore").replace("\0", "") for file in files)}
    shards = sorted(Path(samples).glob("*/train-*.tar"))
    return {"samples": lambda: (text for shard in shards for text in read_texts(shard)), "made-up": made_up}


if __name__ == "__main__":
    main()
