"""What a run came to: gathered once into `summary.json`, shown as tables at the end and when asked again."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

from framework import distributed
from framework.config import TrainingConfig
from framework.stream.manifest import kept_tokenizer
from framework.training.checkpoints.store import newest_place
from framework.training.engine import Engine
from framework.training.optimization.optimizer import trainable
from framework.training.record.forecast import comparison, peak_bytes
from framework.training.record.json_lines import objects
from framework.training.record.tally import Tally
from framework.training.stage import HeldOut, Stage
from framework.training.state import element_count


def gather(
    run: Path, config: TrainingConfig, stage: Stage, tally: Tally, held_out: dict[str, HeldOut], engine: Engine
) -> dict[str, Any]:
    """Facts about a finished run, from its records and its stage; also written to `summary.json`."""
    records = list(objects(run / "metrics.jsonl"))
    last = records[-1]
    facts: dict[str, Any] = {
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
        "peak_tflops": config.cluster.tflops(config.precision.dtype),
        "training_seconds": sum(record["train/step_seconds"] for record in records),
        **stage.facts(tally.by_corpus(last["data/sequences"]), held_out),
        "artefacts": {
            **stage.artefacts(run),
            "tokenizer": str(kept_tokenizer(run)),
            "checkpoint": newest_place(run, config.checkpoint),
            "metrics": str(run / "metrics.jsonl"),
            **({"model": str(run / "model")} if (run / "model").exists() else {}),  # else an adapter alone
            "report": str(run / "report.html"),
        },
    }
    trained = sum(element_count(parameter) for _, parameter in trainable(engine.module))
    peak = peak_bytes(run, records, engine.device)
    also = {"trained": trained, "peak_bytes": peak, "device": engine.device.type}
    facts["plan"] = comparison(run, config, facts | also)
    written = run / ".summary.json.partial"
    written.write_text(json.dumps(facts, indent=1) + "\n")
    written.replace(run / "summary.json")  # at once: half of one would be shown when the run is asked for again
    return facts


def show(run: Path, stage: Stage) -> None:
    """Print the summary of a finished run, on rank 0."""
    if distributed.rank() != 0:
        return
    from rich.console import Console

    facts = json.loads((run / "summary.json").read_text())
    console = Console()
    for table in stage.tables(facts):
        console.print(table)
    for line in (
        f"{facts['steps']:,} steps, {facts['tokens']:,} tokens: loss {facts['loss']:.4f}",
        f"ranks: {facts['ranks']}, ZeRO stage {facts['zero_stage']}: {facts['training_seconds']:,.0f} s of training, "
        f"{facts['tokens_per_second']:,.0f} tokens/s in the median step",
        f"MFU {facts['mfu']:.1%} of {facts['processors']} x {facts['peak_tflops']} TFLOP/s",
    ):
        console.print(line, highlight=False)
    for name, one in facts.get("plan", {}).items():
        line = f"plan: {name.replace('_', ' ')} {one['predicted']:,.0f}, in fact {one['fact']:,.0f}"
        console.print(line, highlight=False)
    if facts["updates_skipped"] or facts["rolled_back"]:
        line = f"guard: {facts['updates_skipped']} updates skipped, went back {facts['rolled_back']} times"
        console.print(line, highlight=False)
    for name, path in facts["artefacts"].items():
        console.print(f"  {name:<14} {path}", highlight=False)
    console.print("Next:", highlight=False)
    console.print(f"  {stage.next_command(run)}", highlight=False, markup=False, soft_wrap=True)
