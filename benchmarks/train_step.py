"""What a step of training costs beside other trainers, on the same shapes, batches and ranks, in the same run.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m benchmarks.train_step

On CPUs it prints the time of a step and its ratio to plain DDP's, with the demo's shape; on GPUs tokens a second and
MFU, for models of 124M, 1B and 8B parameters where memory permits. Whoever has no entry is not installed.

- loam: the whole step of the trainer: rows from token shards, checked, hashed and agreed on by the ranks, forward,
  backward, clipping, update, at each ZeRO stage asked for.
- ddp: torch's DistributedDataParallel over the same model, the same attention and AdamW, clipping, on batches that lie
  ready in memory. The least that any trainer has to do. On GPUs it is in bf16 with fp32 weights, by autocast.
- trainer: transformers' `Trainer` (it wants accelerate) over its Llama of the same shape, batches ready in memory.
- litgpt, if it is installed: its GPT of the same shape in a loop of Lightning Fabric's, with its loss in chunks.

Contestants take turns, a few steps each, so that whatever else the machine does falls on all of them; the median of
the steps counts, in the slowest rank. Where other programs share the cores, ranks wait for each other longer than they
compute, so processor time is printed too. All clip to norm 1, and all but the Trainer, which would not, read the loss.
"""

import argparse
import contextlib
import gc
import importlib.util
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.stream import write_data
from framework import distributed
from framework.config import BatchConfig, ModelConfig, PrecisionConfig, PretrainConfig, StartingModelConfig, ZeroConfig
from framework.model.arithmetic import count_parameters, training_flops_per_token
from framework.model.transformer import Transformer, initialize
from framework.stream.curriculum import Curriculum
from framework.stream.loader import TrainingRows, share_of
from framework.stream.manifest import read_manifest
from framework.stream.shards import LocalShards


@dataclass(frozen=True)
class Work:
    """What everybody does: a model, rows of tokens, rows a rank and step."""

    name: str
    model: ModelConfig
    length: int
    rows: int
    data: Path

    def tokens(self) -> Tensor:
        """A batch [rows, length + 1] that lies ready, another on each rank."""
        generator = torch.Generator().manual_seed(distributed.rank())
        return torch.randint(2, self.model.vocabulary_size, (self.rows, self.length + 1), generator=generator)


Contestant = Iterator[None]  # a step each time it is asked


def loam(work: Work, stage: int, **settings: Any) -> Contestant:
    """Rows, agreement, update: what `Trainer._update` does."""
    from framework.training.engine import Engine

    world_size = distributed.world_size()
    config = PretrainConfig(
        model=StartingModelConfig(**asdict(work.model)),
        batch=BatchConfig(sequences=work.rows * world_size, micro=work.rows),
        zero=ZeroConfig(stage=stage),
        precision=PrecisionConfig("bf16" if torch.cuda.is_available() else "fp32"),
        **settings,
    )
    model = Transformer(work.model)
    initialize(model, work.model, 0)
    engine = Engine(model, config)
    rows = TrainingRows(read_manifest(work.data), {"web": 3, "books": 1}, Curriculum(work.length), 64, 0, LocalShards())
    position, sequences = 0, config.batch.sequences
    while True:
        engine.step(rows.read(share_of(distributed.rank(), world_size, position, sequences)), 1e-4)
        position += sequences
        yield


def ddp(work: Work, **_settings: Any) -> Contestant:
    """Torch alone; on GPUs with a fused AdamW and autocast to bf16."""
    device = _device()
    model = Transformer(work.model).to(device)
    initialize(model, work.model, 0)
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    tokens = work.tokens().to(device)
    document = torch.zeros_like(tokens[:, :-1], dtype=torch.int32)
    while True:
        with _autocast(device):
            logits = parallel(tokens[:, :-1], document).float()
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        yield


def trainer(work: Work, **_settings: Any) -> Contestant:
    """Transformers' Trainer in a thread of its own, which is let go a step at a time."""
    import transformers

    shape = work.model
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.head_size,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=work.length,
        tie_word_embeddings=shape.tied_embeddings,
    )
    go, waiting = threading.Semaphore(0), threading.Semaphore(0)

    class TakingTurns(transformers.TrainerCallback):
        def on_step_begin(self, *_arguments: Any, **_more: Any) -> None:
            waiting.release()  # here and nowhere else, that its collectives fall between no others
            go.acquire()

    cuda = torch.cuda.is_available()
    arguments = transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="loam-benchmark-"),
        per_device_train_batch_size=work.rows,
        max_steps=10**6,
        learning_rate=1e-4,
        max_grad_norm=1.0,
        bf16=cuda,
        use_cpu=not cuda,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
    )
    rows = [{"input_ids": row[:-1], "labels": row[:-1]} for row in work.tokens()] * 1000
    training = transformers.Trainer(
        model=transformers.LlamaForCausalLM(config), args=arguments, train_dataset=rows, callbacks=[TakingTurns()]
    )
    threading.Thread(target=training.train, daemon=True).start()
    waiting.acquire()
    while True:
        go.release()
        waiting.acquire()
        yield


def litgpt(work: Work, **_settings: Any) -> Contestant:
    """litgpt's model in the loop of its `pretrain`, without its files."""
    import lightning
    from litgpt import GPT, Config
    from litgpt.utils import chunked_cross_entropy

    shape, cuda = work.model, torch.cuda.is_available()
    fabric = lightning.Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices="auto" if cuda else distributed.world_size(),
        strategy="ddp",
        precision="bf16-mixed" if cuda else "32-true",
    )
    fabric.launch()
    config = Config(
        block_size=work.length,
        vocab_size=shape.vocabulary_size,
        padded_vocab_size=shape.vocabulary_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_query_groups=shape.key_value_heads,
        n_embd=shape.hidden_size,
        head_size=shape.head_size,
        intermediate_size=shape.intermediate_size,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    model = GPT(config)
    if shape.tied_embeddings:
        model.transformer.wte.weight = model.lm_head.weight
    model, optimizer = fabric.setup(model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=cuda))
    tokens = work.tokens().to(fabric.device)
    while True:
        loss = chunked_cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        yield


def _device() -> torch.device:
    return torch.device("cuda", distributed.local_rank()) if torch.cuda.is_available() else torch.device("cpu")


def _autocast(device: torch.device) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()


def timed_step(contestant: Contestant) -> tuple[float, float]:
    """Seconds of one step, begun by all ranks together: on the clock, and of processor time; of the slowest rank."""
    dist.barrier()
    started, computing = time.perf_counter(), time.process_time()
    next(contestant)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    computed, seconds = time.process_time() - computing, time.perf_counter() - started
    both = torch.tensor([seconds, computed], device=_device())
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return float(both[0]), float(both[1])


def race(contestants: dict[str, Contestant], turns: int, steps: int) -> dict[str, tuple[float, float]]:
    """Median seconds of a step of each contestant, on the clock and of processor time, in turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, contestant in contestants.items():
            taken[name] += [timed_step(contestant) for _ in range(steps)]
    clock, processor = 0, 1
    return {
        name: (statistics.median(s[clock] for s in each), statistics.median(s[processor] for s in each))
        for name, each in taken.items()
    }


def started(contestants: dict[str, Callable[[], Contestant]]) -> tuple[dict[str, Contestant], dict[str, float]]:
    """Everybody after a first step, and the seconds from being called to its end, imports and all."""
    running, first = {}, {}
    for name, build in contestants.items():
        began = time.perf_counter()
        contestant = build()
        timed_step(contestant)
        running[name], first[name] = contestant, time.perf_counter() - began
    return running, first


def contestants_for(work: Work, stages: list[int], **settings: Any) -> dict[str, Callable[[], Contestant]]:
    """Those that are installed, Loam at each stage."""
    chosen: dict[str, Callable[[], Contestant]] = {}
    if importlib.util.find_spec("deepspeed"):  # a machine for figures may lack it
        chosen = {f"loam, stage {stage}": partial(loam, work, stage, **settings) for stage in stages}
    chosen["ddp"] = partial(ddp, work)
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("accelerate"):
        chosen["trainer"] = partial(trainer, work)
    if importlib.util.find_spec("litgpt") and importlib.util.find_spec("lightning"):
        chosen["litgpt"] = partial(litgpt, work)
    return chosen


def on_cpu(data: Path, stages: list[int], turns: int, steps: int) -> list[str]:
    """The table of ratios to DDP; everybody at once in memory, in turns."""
    shape = preset("tiny", 256, vocabulary_size=4096)
    work = Work("tiny", shape, 256, 8, data)
    running, first = started(contestants_for(work, stages))
    race(running, 1, 2)
    medians = race(running, turns, steps)
    parameters = count_parameters(shape).total
    lines = [f"{parameters / 1e6:.1f}M parameters, rows of 256, 8 rows a rank, {distributed.world_size()} ranks, fp32"]
    for name, seconds in medians.items():
        clock, processor = (each / of_ddp for each, of_ddp in zip(seconds, medians["ddp"], strict=True))
        lines.append(
            f"{name:<15}{seconds[0] * 1e3:6.0f} ms a step {clock:5.2f}x of ddp{seconds[1] * 1e3:7.0f} ms of processor "
            f"{processor:5.2f}x of ddp   first step after {first[name]:.1f} s"
        )
    return lines


def on_gpu(data: Path, stages: list[int], turns: int, steps: int, peak: float) -> list[str]:
    """Tokens a second and MFU, one contestant at a time, for each size that fits."""
    lines = []
    for name, length, rows in (("gpt2_124m", 1024, 16), ("llama_1b", 2048, 8), ("llama_8b", 2048, 1)):
        work = Work(name, preset(name, length), length, rows, data)
        for who, build in contestants_for(work, stages).items():
            lines.append(_alone(work, who, build, turns * steps, peak))
    return lines


def _alone(work: Work, who: str, build: Callable[[], Contestant], steps: int, peak: float) -> str:
    """One line about one contestant, which is gone afterwards; running out of memory is a result."""
    try:
        running, first = started({who: build})
        race(running, 1, 3)
        seconds, _ = race(running, 1, steps)[who]
    except torch.OutOfMemoryError:
        return f"{work.name:<10} {who:<16} does not fit"
    finally:
        running = {}
        gc.collect()
        torch.cuda.empty_cache()
    tokens = work.rows * work.length / seconds  # of one GPU
    utilisation = training_flops_per_token(work.model, work.length) * tokens / (peak * 1e12)
    return (
        f"{work.name:<10} {who:<16} {tokens:10,.0f} tokens/s a GPU  MFU {utilisation:6.1%}  "
        f"first step after {first[who]:.1f} s"
    )


def preset(name: str, length: int, **more: Any) -> ModelConfig:
    """A shape of `configs/model`, for rows of `length`, with what the file leaves open."""
    import yaml

    text = (Path(__file__).parents[1] / "configs" / "model" / f"{name}.yaml").read_text()
    return ModelConfig(**{**yaml.safe_load(text), **more, "maximum_positions": length})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, nargs="+", default=[0, 2], help="ZeRO stages of loam's")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--steps", type=int, default=3, help="of each contestant in each turn")
    parser.add_argument("--peak", type=float, default=989.4, help="dense bf16 TFLOP/s of one GPU, for MFU")
    arguments = parser.parse_args()
    distributed.start()
    with tempfile.TemporaryDirectory(prefix="loam-benchmark-") as folder:
        data = Path(distributed.broadcast(folder))
        if distributed.rank() == 0:
            write_data(data, blocks=2, vocabulary=4096)
        dist.barrier()
        few = arguments.stages, arguments.turns, arguments.steps
        lines = on_gpu(data, *few, arguments.peak) if torch.cuda.is_available() else on_cpu(data, *few)
        dist.barrier()
    if distributed.rank() == 0:
        print(machine("torch", "deepspeed", "transformers", "accelerate", "litgpt"))
        print("\n".join(lines), flush=True)
    os._exit(0)  # the Trainer's thread waits for a turn that does not come


if __name__ == "__main__":
    main()
