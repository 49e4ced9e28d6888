"""The loss curve of each model family, to the last bit, on x86-64 processors with AVX2 of a maker that has one kept.

    python -m tests.golden.curves            prints the curves of this source
    python -m tests.golden.curves --write    keeps them in tests/golden/curves.json, when they were meant to change
    python -m tests.golden.curves --add      keeps them beside those of other makers, which are of this source too

Sums of floating-point numbers depend on how wide a processor's vectors are, so the process fixes that: PyTorch's
kernels are those for AVX2, and MKL takes the code path that is the same on every processor (Intel oneMKL Developer
Guide, "Conditional Numerical Reproducibility"). What is left is the arithmetic that this source asks for, up to the
maker: on an AMD EPYC and an Intel Xeon of the same settings, 16 of 120 numbers differed in their last bit.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from framework.config import (
    BatchConfig,
    CheckpointConfig,
    DataConfig,
    ObjectiveConfig,
    PretrainConfig,
    RunConfig,
    ScheduleConfig,
    StartingModelConfig,
    ValidationConfig,
    ZeroConfig,
)
from tests.launch import ENVIRONMENT, records

FILE = Path(__file__).with_suffix(".json")
FIXED = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
STEPS = 12
SMALL = {"hidden_size": 48, "layers": 2, "heads": 4, "maximum_positions": 64}
BIASED = {"attention_bias": True, "attention_output_bias": True, "mlp_bias": True}
MODELS = {
    "gpt2": {"norm": "layernorm", "activation": "gelu", "position": "learned", **BIASED},
    "llama": {"key_value_heads": 2, "tied_embeddings": False},
    "mistral": {"key_value_heads": 2, "sliding_window": 9, "tied_embeddings": False},
    "qwen3": {"key_value_heads": 2, "head_size": 16, "qk_norm": True},
    "eurobert": {"causal": False},
}
OBJECTIVES = {"eurobert": ObjectiveConfig(name="masked_lm", rate=0.3, masked=1.0)}


def maker() -> str:
    """Who made the processor, as Linux names them; empty where it does not say."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


def train_all() -> dict[str, list[dict[str, float]]]:
    """Loss, gradient norm and batch of each step, by family."""
    from framework.training.pretraining import train
    from tests.synthetic import make_data

    curves = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder) / "data", {"web": 300, "books": 60}, {"web": 60, "books": 16})
        for family, model in MODELS.items():
            (Path(folder) / family / "log").mkdir(parents=True)
            train(
                PretrainConfig(
                    run=RunConfig(directory=folder, name=family, stop_after=STEPS),
                    data=DataConfig(path=str(data), sequence_length=32, lanes=8),
                    objective=OBJECTIVES.get(family, ObjectiveConfig()),
                    model=StartingModelConfig(**SMALL, **model),
                    batch=BatchConfig(sequences=16, micro=8),
                    schedule=ScheduleConfig(steps=STEPS + 1, warmup_steps=3),
                    zero=ZeroConfig(stage=1),
                    checkpoint=CheckpointConfig(every=STEPS),
                    validation=ValidationConfig(every=STEPS),
                )
            )
            wanted = ("train/loss", "train/gradient_norm", "data/batch_hash")
            curves[family] = [{name: step[name] for name in wanted} for step in records(Path(folder) / family)]
    return curves


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in FIXED.items()):
        os.execvpe(sys.executable, [sys.executable, "-m", "tests.golden.curves", *sys.argv[1:]], ENVIRONMENT | FIXED)
    stdout, sys.stdout = sys.stdout, sys.stderr  # what training says is not the answer
    answer = {maker(): train_all()}
    if sys.argv[1:] in (["--write"], ["--add"]):
        others = json.loads(FILE.read_text()) if sys.argv[1:] == ["--add"] else {}
        FILE.write_text(json.dumps(others | answer, indent=1) + "\n")
    print(json.dumps(answer, indent=1), file=stdout)
