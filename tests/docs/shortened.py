"""What stands in `.venv/bin` of the scratch copy: the real programs, with overrides that make a job small.

The commands of the pages are so run as they are written, from a shell, from make and from scripts alike.
"""

import os
import sys
from pathlib import Path

_TRAINING = {
    "": ("schedule.steps=3", "schedule.warmup_steps=1", "validation.every=3", "checkpoint.every=2"),
    "schedule.decay_steps": ("schedule.decay_steps=1",),
    "schedule.epochs": ("schedule.epochs=0",),
    "profile.steps": ("profile.steps=[2,3]",),
    "samples.every": ("samples.every=3", "samples.tokens=4"),
    "run.stop_after": ("run.stop_after=2",),
    "evaluation.every": ("evaluation.every=3",),
}
SMALL: dict[str, dict[str, tuple[str, ...]]] = {  # by entry point, what is added where a field is given; "": always
    "framework.prepare": {"output": ("tokenizer.vocabulary_size=1024", "tokenizer.sample_bytes=300000")},
    "framework.pretrain": {**_TRAINING, "sweep.trials": ("sweep.trials=2",)},
    "framework.finetune": {
        **_TRAINING,
        "": (*_TRAINING[""], "batch.sequences=2", "instruction.answers=2", "instruction.answer_tokens=4"),
    },
    "framework.evaluate": {
        "": ("memorization.passages=2", "tasks.limit=4", "harness.limit=2"),
        "perplexity.data": ("perplexity.documents=2",),
    },
    "framework.compress": {"perplexity.data": ("perplexity.documents=2",)},
    "framework.generate": {"": ("maximum_tokens=8",)},
}


def shortened(arguments: list[str]) -> list[str]:
    """A command line with what makes it small behind it, where a later value of a field counts."""
    module = next((module for module in SMALL if module in arguments), None)
    if module is None or {"--help", "--cfg"} & set(arguments):
        return arguments
    given = {"", *(argument.partition("=")[0] for argument in arguments)}
    more = [override for field, overrides in SMALL[module].items() if field in given for override in overrides]
    if module == "framework.pretrain" and not {"model.layers", "model.from", "--config-dir"} & given:
        more.append("model.layers=1")
    if "perplexity.row_length" in given:  # which takes whole splits
        more.remove("perplexity.documents=2")
    return [*arguments, *more]


def place(folder: Path) -> None:
    """Make `folder` a `.venv` whose programs are the ones of this interpreter, made small."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "python3", "torchrun", "deepspeed"):
        program = folder / "bin" / name
        become = f"_become({str(Path(sys.executable).parent)!r})"
        program.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}\n{become}\n")
        program.chmod(0o755)
    (folder / "bin" / "activate").write_text(f"export PATH={folder / 'bin'}:$PATH\n")
    (folder / "installed").touch()  # what make looks for


def _become(real: str) -> None:
    name = Path(sys.argv[0]).name
    os.execv(f"{real}/{name}", [f"{real}/{name}", *shortened(sys.argv[1:])])
