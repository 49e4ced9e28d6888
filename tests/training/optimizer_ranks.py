"""For processes of their own, as ranks: every optimizer at every stage; what came of it to files in sys.argv[1].

`NAME-STAGE.safetensors`: losses and, after the last update, each parameter's fields. `NAME-from-2-to-STAGE`: the same
for a run that stopped half way at stage 2 and went on at another.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from framework import distributed
from framework.config import (
    BatchConfig,
    EmaConfig,
    ModelConfig,
    OptimizerConfig,
    PrecisionConfig,
    PretrainConfig,
    ZeroConfig,
)
from framework.model.huggingface import assemble
from framework.model.transformer import Transformer, initialize
from framework.stream.loader import NO_LOSS, Batch

# under muP, so that there are groups of every kind; no matrix is cut where another is
MODEL = ModelConfig(
    *(50, 12, 2, 3),
    head_size=4,
    intermediate_size=22,
    attention_bias=True,
    tied_embeddings=False,
    mup_base_width=8,
)
ROWS, MICRO, TIME = 8, 2, 10
RATES = [0.004, 0.01, 0.01, 0.008, 0.004, 0.001]
HALF = len(RATES) // 2
RESUMED = (2, 3)  # stages at which a run of stage 2 goes on
AVERAGE = EmaConfig(decay=0.6, every=2, hand_over=True)
SETTINGS = {
    "adamw": OptimizerConfig(weight_decay=0.5, no_decay=["embedding.*"]),
    "muon": OptimizerConfig("muon", adamw_learning_rate=5e-4, weight_decay=0.5, gradient_clipping=0.3),
    "lion": OptimizerConfig("lion", beta2=0.99, weight_decay=0.5),
}


def batch(step: int, rank: int = 0, ranks: int = 1) -> Batch:
    """A rank's random rows; the labels that count differ in number from row to row."""
    random = np.random.default_rng(step)
    tokens = random.integers(0, MODEL.vocabulary_size, (ROWS, TIME + 1))
    labels = np.where(random.random((ROWS, TIME)) < np.linspace(0.1, 0.9, ROWS)[:, None], NO_LOSS, tokens[:, 1:])
    mine = slice(rank * ROWS // ranks, (rank + 1) * ROWS // ranks)
    content = Batch(tokens[:, :-1].copy(), labels, np.zeros((ROWS, TIME), dtype=np.int32), [""] * ROWS)
    return Batch(content.tokens[mine], content.labels[mine], content.document[mine], content.corpora[mine])


def fresh_model() -> Transformer:
    model = Transformer(MODEL)
    initialize(model, MODEL, seed=3)
    return model


def config_of(name: str, stage: int, dtype: str = "fp32") -> PretrainConfig:
    return PretrainConfig(
        model=MODEL,
        batch=BatchConfig(sequences=ROWS, micro=MICRO),
        optimizer=SETTINGS[name],
        zero=ZeroConfig(stage=stage),
        ema=AVERAGE,
        precision=PrecisionConfig(dtype),
    )


def main() -> None:
    from framework.training import average, state
    from framework.training.engine import Engine

    rank, ranks = distributed.rank(), distributed.world_size()
    directory = Path(sys.argv[1])

    def train(engine, config, steps):
        losses = []
        for step in steps:
            losses.append(engine.step(batch(step, rank, ranks), RATES[step]).loss)
            average.update(engine, config.ema, step + 1)
        return losses

    def write(name, engine, losses):
        found = {
            f"{parameter}/{field}": value.detach().clone()
            for parameter, values in state.collect(engine)
            for field, value in values.items()
        }
        if rank == 0:
            save_file({**found, "losses": torch.tensor(losses, dtype=torch.float64)}, directory / f"{name}.safetensors")

    def check_in_place(engine, config):
        tokens = torch.from_numpy(batch(0).tokens)
        averages = distributed.broadcast(state.whole_weights(engine, state.AVERAGE))
        with torch.no_grad():
            before = engine.module(tokens)
            with average.in_place(engine, config.ema):
                within = engine.module(tokens)
            after = engine.module(tokens)
            assert torch.equal(within, assemble(MODEL, averages).train()(tokens))
        assert torch.equal(before, after)
        assert not torch.equal(before, within)

    for name in SETTINGS:
        kept: dict[str, torch.Tensor] = {}
        for stage in range(4):
            config = config_of(name, stage)
            engine = Engine(fresh_model(), config)
            losses = train(engine, config, range(HALF))
            if stage == 2:
                kept = {}
                for part in distributed.gather(state.owned_state(engine)):
                    kept |= part
                updates = state.optimizer_steps(engine)
            losses += train(engine, config, range(HALF, len(RATES)))
            check_in_place(engine, config)
            write(f"{name}-{stage}", engine, losses)
        for stage in RESUMED:
            config = config_of(name, stage)
            model = Transformer(MODEL)
            model.load_state_dict({key: kept[f"{key}/master"] for key, _ in model.named_parameters()})
            engine = Engine(model, config)
            state.restore(
                engine, lambda parameter, field, kept=kept: kept[f"{parameter}/{field}"], updates, averaged=True
            )
            write(f"{name}-from-2-to-{stage}", engine, train(engine, config, range(HALF, len(RATES))))
    for stage in (1, 2, 3):
        config = config_of("muon", stage, "bf16")
        engine = Engine(fresh_model(), config)
        write(f"bf16-{stage}", engine, train(engine, config, range(len(RATES))))


if __name__ == "__main__":
    main()
    distributed.leave(0)
