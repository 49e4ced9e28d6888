"""What a run came to: gathered once into `summary.json`, shown as tables at the end and when asked again."""

import json
import statistics
from pathlib import Path
from typing import Any

from framework import distributed
from framework.config import PretrainConfig
from framework.stream.loader import TrainingRows
from framework.stream.manifest import Manifest, Split
from framework.training.checkpoint import checkpoints
from framework.training.engine import Engine
from framework.training.metrics import read_metrics
from framework.training.validation import HeldOut


def gather(
    run: Path,
    config: PretrainConfig,
    manifest: Manifest,
    rows: TrainingRows,
    held_out: dict[str, HeldOut],
    engine: Engine,
) -> dict[str, Any]:
    """Facts about a finished run, from its records and the manifest; also written to `summary.json`."""
    records = read_metrics(run / "metrics.jsonl")
    last = records[-1]
    drawn = rows.tokens_drawn(last["data/sequences"])
    total_weight = sum(rows.weights.values())
    facts = {
        "steps": last["step"],
        "tokens": last["data/tokens"],
        "ranks": engine.world_size,
        "processors": engine.processors,
        "zero_stage": config.zero.stage,
        "loss": last["train/loss"],
        # the median, as the first step of every start is slower
        "tokens_per_second": statistics.median(record["train/tokens_per_second"] for record in records),
        "mfu": statistics.median(record["train/mfu"] for record in records),
        "peak_tflops": config.cluster.peak_tflops,
        "training_seconds": sum(record["train/step_seconds"] for record in records),
        "corpora": {
            name: {
                "documents_in": corpus.facts["documents_in"],
                "documents_kept": corpus.facts["documents_kept"],
                "tokens": corpus.train.tokens,
                "epochs": drawn.get(name, 0) / corpus.train.tokens,
                "share_asked": rows.weights.get(name, 0.0) / total_weight,
                "share_realised": drawn.get(name, 0) / sum(drawn.values()),
                "held_out_loss": held_out[name].loss if name in held_out else None,
                "held_out_documents": corpus.validation.documents,
                "held_out_bytes": corpus.validation.bytes,
                "bits_per_byte": held_out[name].bits_per_byte if name in held_out else None,
                "gzip_bits_per_byte": _bits_per_byte(corpus.validation, "gzip_bytes"),
                "xz_bits_per_byte": _bits_per_byte(corpus.validation, "xz_bytes"),
            }
            for name, corpus in manifest.corpora.items()
        },
        "artefacts": {
            "token shards": manifest.path.removesuffix("/manifest.json"),
            "tokenizer": str(run / "tokenizer.model"),
            "checkpoint": str(checkpoints(run)[0]),
            "metrics": str(run / "metrics.jsonl"),
            "model": str(run / "model"),
        },
    }
    (run / "summary.json").write_text(json.dumps(facts, indent=1) + "\n")
    return facts


def _bits_per_byte(split: Split, compressor: str) -> float:
    """What a file compressor makes of the same held-out bytes."""
    return 8 * int(split.facts[compressor]) / split.bytes


def show(run: Path) -> None:
    """Print the summary of a finished run, on rank 0."""
    if distributed.rank() != 0:
        return
    from rich.console import Console

    facts = json.loads((run / "summary.json").read_text())
    console = Console()
    console.print(_corpora_table(facts))
    console.print(_held_out_table(facts))
    for line in (
        f"{facts['steps']:,} steps, {facts['tokens']:,} tokens: loss {facts['loss']:.4f}",
        f"ranks: {facts['ranks']}, ZeRO stage {facts['zero_stage']}: {facts['training_seconds']:,.0f} s of training, "
        f"{facts['tokens_per_second']:,.0f} tokens/s in the median step",
        f"MFU {facts['mfu']:.1%} of {facts['processors']} x {facts['peak_tflops']} TFLOP/s",
    ):
        console.print(line, highlight=False)
    for name, path in facts["artefacts"].items():
        console.print(f"  {name:<14} {path}", highlight=False)
    console.print("Next:", highlight=False)
    console.print(
        f'  python -m framework.generate model.path={facts["artefacts"]["model"]} prompt="It is a truth"',
        highlight=False,
        soft_wrap=True,
    )


def _corpora_table(facts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title="Corpora", title_justify="left")
    for heading in ("corpus", "documents in", "kept", "training tokens", "epochs", "share asked", "realised"):
        table.add_column(heading, justify="left" if heading == "corpus" else "right")
    for name, corpus in facts["corpora"].items():
        table.add_row(
            name,
            f"{corpus['documents_in']:,}",
            f"{corpus['documents_kept']:,}",
            f"{corpus['tokens']:,}",
            f"{corpus['epochs']:.2f}",
            f"{corpus['share_asked']:.2%}",
            f"{corpus['share_realised']:.2%}",
        )
    return table


def _held_out_table(facts: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(title="Held-out documents, bits per byte", title_justify="left")
    for heading in ("corpus", "documents", "bytes", "loss a token", "this model", "gzip -9", "xz -9"):
        table.add_column(heading, justify="left" if heading == "corpus" else "right")
    for name, corpus in facts["corpora"].items():
        if corpus["bits_per_byte"] is not None:
            table.add_row(
                name,
                f"{corpus['held_out_documents']:,}",
                f"{corpus['held_out_bytes']:,}",
                f"{corpus['held_out_loss']:.3f}",
                f"{corpus['bits_per_byte']:.3f}",
                f"{corpus['gzip_bits_per_byte']:.3f}",
                f"{corpus['xz_bits_per_byte']:.3f}",
            )
    return table
