"""What a run came to: gathered once into `summary.json`, shown as tables at the end and when asked again."""

import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framework import distributed
from framework.config import PretrainConfig
from framework.stream.loader import TrainingRows
from framework.stream.manifest import Manifest, Split, kept_tokenizer
from framework.training.checkpoints.store import newest_place
from framework.training.engine import Engine
from framework.training.record.json_lines import objects
from framework.training.record.tally import Tally
from framework.training.validation import HeldOut


def gather(
    run: Path,
    config: PretrainConfig,
    manifest: Manifest,
    rows: TrainingRows,
    tally: Tally,
    held_out: dict[str, HeldOut],
    engine: Engine,
) -> dict[str, Any]:
    """Facts about a finished run, from its records and the manifest; also written to `summary.json`."""
    records = list(objects(run / "metrics.jsonl"))
    last = records[-1]
    drawn = tally.by_corpus(last["data/sequences"])
    total_weight = sum(rows.weights.values())
    facts = {
        "steps": last["step"],
        "tokens": last["data/tokens"],
        "ranks": engine.world_size,
        "processors": engine.processors,
        "zero_stage": config.zero.stage,
        "loss": next((loss for record in reversed(records) if (loss := record["train/loss"]) is not None), math.nan),
        "updates_skipped": last["guard/skipped"],
        "rolled_back": last["guard/rolled_back"],
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
                "share_realised": drawn.get(name, 0) / max(1, sum(drawn.values())),
                "held_out_documents": corpus.validation.documents,
                "held_out_bytes": corpus.validation.bytes,
                **_held_out_facts(corpus.validation, held_out.get(name)),
            }
            for name, corpus in manifest.corpora.items()
        },
        "artefacts": {
            "token shards": manifest.path.removesuffix("/manifest.json"),
            "tokenizer": str(kept_tokenizer(run)),
            "checkpoint": newest_place(run, config.checkpoint),
            "metrics": str(run / "metrics.jsonl"),
            "model": str(run / "model"),
            "report": str(run / "report.html"),
        },
    }
    written = run / ".summary.json.partial"
    written.write_text(json.dumps(facts, indent=1) + "\n")
    written.replace(run / "summary.json")  # at once: half of one would be shown when the run is asked for again
    return facts


def _held_out_facts(split: Split, result: HeldOut | None) -> dict[str, float | None]:
    """What the model does on the held-out documents, and a file compressor."""
    found = asdict(result) if result else {}
    return {
        "held_out_loss": found.get("loss"),
        "bits_per_byte": found.get("bits_per_byte"),
        "masked_loss": found.get("masked_loss"),
        "gzip_bits_per_byte": _bits_per_byte(split, "gzip_bytes"),
        "xz_bits_per_byte": _bits_per_byte(split, "xz_bytes"),
    }


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
    if facts["updates_skipped"] or facts["rolled_back"]:
        line = f"guard: {facts['updates_skipped']} updates skipped, went back {facts['rolled_back']} times"
        console.print(line, highlight=False)
    for name, path in facts["artefacts"].items():
        console.print(f"  {name:<14} {path}", highlight=False)
    console.print("Next:", highlight=False)
    console.print(f"  {_next(run, facts['artefacts']['model'])}", highlight=False, markup=False, soft_wrap=True)


def _next(run: Path, model: str) -> str:
    """A command that puts the model to use."""
    family = json.loads((run / "model" / "provenance.json").read_text())["family"]
    if family == "eurobert":
        return "python -c 'from transformers import pipeline; " + (
            f'print(pipeline("fill-mask", "{model}")("<|endoftext|>It is a<|mask|> universally acknowledged"))' + "'"
        )
    return f'python -m framework.generate model.path={model} prompt="It is a truth"'


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

    if any(corpus.get("masked_loss") is not None for corpus in facts["corpora"].values()):
        title = "Held-out documents, 15 % of the tokens masked"
        columns = {"loss a mask": ("masked_loss", ".3f")}
    else:
        title = "Held-out documents, bits per byte"
        columns = {
            "loss a token": ("held_out_loss", ".3f"),
            "this model": ("bits_per_byte", ".3f"),
            "gzip -9": ("gzip_bits_per_byte", ".3f"),
            "xz -9": ("xz_bits_per_byte", ".3f"),
        }
    columns = {"documents": ("held_out_documents", ","), "bytes": ("held_out_bytes", ",")} | columns
    table = Table("corpus", title=title, title_justify="left")
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, corpus in facts["corpora"].items():
        if all(corpus[key] is not None for key, _ in columns.values()):
            table.add_row(name, *(format(corpus[key], form) for key, form in columns.values()))
    return table
