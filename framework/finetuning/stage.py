"""What every task of fine-tuning has in common as a stage of training; a task adds its loss and its measures."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framework import distributed
from framework.config import FinetuneConfig
from framework.distributed import together
from framework.errors import UserError
from framework.finetuning.adaptation.adapt import adapt, layer_rates, load_base
from framework.finetuning.adaptation.handing_over import whole_state, write_adapter
from framework.finetuning.adaptation.lora import RowDropout
from framework.finetuning.data import Splits, read_splits, show_data
from framework.finetuning.tokens.encoded import Encoded
from framework.finetuning.tokens.lengths import LengthPolicy
from framework.finetuning.tokens.rows import ExampleRows
from framework.model.classifier import Classes
from framework.model.huggingface import write_model_directory
from framework.model.tokenizer import Tokenizer, load_tokenizer
from framework.model.tokenizer_files import TextForm, write_tokenizer_files
from framework.model.transformer import Transformer
from framework.stream.loader import Order
from framework.training.checkpoints.identity import Identity
from framework.training.checkpoints.reader import Checkpoint
from framework.training.criterion import Arrays, Criterion
from framework.training.engine import Engine
from framework.training.execution.abilities import check_machine
from framework.training.optimization.optimizer import trainable
from framework.training.origin import digest_of_origin, weights_of_origin
from framework.training.stage import HeldOut

BATCHES_AHEAD = 0  # the examples are in memory


class Finetuning(ABC):
    """See `framework.training.stage.Stage`.

    Attributes:
        criterion: what is minimised.
        splits: the examples.
        encoded: those of each split as tokens, by its name.
        rows: the training examples in rows.
        heads: how the names of parameters begin that the task adds to the model.
        form: how the model is to read text, where its tokenizer files are to say so.
        classes: what it tells apart, where it is a classifier.
    """

    batches_ahead = BATCHES_AHEAD
    allow_change = False
    criterion: Criterion | None
    heads: tuple[str, ...] = ()
    form: TextForm | None = None
    starts_from_classifiers = False
    classes: Classes | None = None

    def __init__(self, config: FinetuneConfig) -> None:
        self.config = config
        together(lambda: check_machine(config))
        self.tokenizer: Tokenizer = together(lambda: self._tokenizer())
        together(self._check_base)
        self.splits: Splits = together(lambda: read_splits(config.data, config.task.name))
        if distributed.rank() == 0:
            show_data(self.splits.facts)
        self.encoded: dict[str, Encoded] = together(self.encode)
        rows = config.rows
        self.rows = ExampleRows(self.encoded["train"], rows.length, rows.seed, rows.packing)
        config.schedule.settle(self.rows.rows_of(config.schedule.epochs), config.batch.sequences)
        together(config.check_steps)

    def _check_base(self) -> None:
        """What the run starts from can be read, which shows now, not once the data are and a directory was made."""
        if distributed.rank() == 0:
            weights_of_origin(self.config, classifiers=self.starts_from_classifiers)

    def _tokenizer(self) -> Tokenizer:
        tokenizer, size = load_tokenizer(Path(self.config.origin)), self.config.model.vocabulary_size
        if tokenizer.size > size:
            raise UserError(
                f"model.path: the tokenizer of {self.config.origin} has {tokenizer.size} ids, its model {size}; "
                "the two are of different models"
            )
        return tokenizer

    @abstractmethod
    def encode(self) -> dict[str, Encoded]:
        """The examples of each split as tokens, and whatever tables the criterion needs.

        Raises:
            UserError: an example cannot be used; names its place.
        """

    @abstractmethod
    def validate(self, engine: Engine) -> dict[str, HeldOut]:
        """See `Stage.validate`."""

    @abstractmethod
    def task_identity(self) -> dict[str, Any]:
        """The settings of the task that must not change over a run."""

    @abstractmethod
    def tables(self, facts: dict[str, Any]) -> list[Any]:
        """See `Stage.tables`."""

    @abstractmethod
    def next_command(self, run: Path) -> str:
        """See `Stage.next_command`."""

    def examine(self, run: Path, engine: Engine) -> None:  # noqa: B027 (not every task does)
        """See `Stage.examine`."""

    def shapes(self) -> Mapping[str, torch.Size]:
        """See `Stage.shapes`."""
        with torch.device("meta"):
            model = together(self._adapted)[0]
        return {name: parameter.shape for name, parameter in trainable(model)}

    def identity(self, found: Checkpoint | None) -> Identity:
        """See `Stage.identity`."""
        config = self.config
        return {
            "task": {"name": config.task.name, **self.task_identity()},
            # frozen weights are read from there again, so that it has to be there, and the same
            "model": asdict(config.model) | {"path": digest_of_origin(config, found if config.trains_all else None)},
            "run": {"seed": config.run.seed},
            "rows": {name: getattr(config.rows, name) for name in ("length", "packing", "seed")},
            "adapter": {name: value for name, value in asdict(config.adapter).items() if name != "merge"},
            "freeze": asdict(config.freeze),
            "data.train": {"sha256": self.encoded["train"].digest()},
        }

    def open(self, run: Path, order: Order, found: Checkpoint | None) -> None:
        """See `Stage.open`."""
        if distributed.rank() == 0:
            (run / "tokenizer").mkdir(exist_ok=True)
            ids = write_tokenizer_files(Path(self.config.origin), run / "tokenizer", self.form)
            known = {key: value for key, value in ids.items() if value is not None}  # GPT-2 tells them nowhere else
            (run / "tokenizer" / "generation_config.json").write_text(json.dumps(known) + "\n")

    def module(self) -> Transformer:
        """See `Stage.module`."""
        model, self._dropout = self._adapted()
        return model

    def _adapted(self) -> tuple[Transformer, RowDropout]:
        model = self.plain_module()
        return model, adapt(model, self.config, self.config.run.seed, self.heads)

    def plain_module(self) -> Transformer:
        """The model as it would be without adapters, its weights yet to be filled."""
        return Transformer(self.config.model)

    def before_forward(self, arrays: Arrays) -> None:
        """See `Stage.before_forward`."""
        self._dropout.before_forward(arrays)

    def set_initial_weights(self, model: Transformer) -> None:
        """See `Stage.set_initial_weights`."""
        load_base(model, weights_of_origin(self.config))

    def rates(self, model: Transformer) -> Mapping[str, float]:
        """See `Stage.rates`."""
        return layer_rates(model, self.config.layer_decay)

    def hand_over(
        self, run: Path, weights: dict[str, Tensor], step: int, tokens: int, held_out: dict[str, HeldOut], origin: str
    ) -> None:
        """See `Stage.hand_over`."""
        if distributed.rank() != 0:
            return
        config, provenance = self.config, self.provenance(step, tokens, held_out, origin)
        base = {} if config.trains_all else weights_of_origin(config, classifiers=True)
        if config.adapter.name != "none":
            write_adapter(
                *(run / "adapter", weights, config.adapter, config.model),
                base=config.origin,
                state=base,
                provenance=provenance,
                classes=self.classes,
            )
        if config.adapter.name == "none" or config.adapter.merge:
            whole = whole_state(base, weights, config.adapter, config.model)
            with torch.device("meta"):
                names = [name for name, _ in self.plain_module().named_parameters()]
            plain = {name: whole[name] for name in names}
            self.write(run / "model", run / "tokenizer", plain, provenance)

    def write(self, path: Path, tokenizer: Path, weights: dict[str, Tensor], provenance: dict[str, Any]) -> None:
        """Write the model directory and prove it; on rank 0."""
        dtype = torch.float32 if self.config.precision.dtype == "fp32" else torch.bfloat16
        write_model_directory(
            path,
            weights,
            self.config.model,
            tokenizer=tokenizer,
            provenance=provenance,
            dtype=dtype,
            form=self.form,
            classes=self.classes,
        )

    def provenance(self, step: int, tokens: int, held_out: dict[str, HeldOut], origin: str) -> dict[str, Any]:
        """Where the model comes from, for provenance.json and the model card."""
        config, adapter = self.config, self.config.adapter
        told = {
            "adapter": f"{adapter.name} of rank {adapter.rank}, alpha {adapter.alpha:g}, on the base it started from"
        }
        return {
            "run": config.run.name,
            "task": config.task.name,
            **(told if adapter.name != "none" else {}),
            "step": step,
            "tokens_seen": tokens,
            "config": asdict(config),
            "data": asdict(self.splits.facts),
            "held_out": {name: asdict(value) for name, value in held_out.items()},
            "started_from": {"path": config.origin, "sha256": origin, **_its_own(Path(config.origin))},
        }

    def facts(self, drawn: dict[str, int], held_out: dict[str, HeldOut]) -> dict[str, Any]:
        """See `Stage.facts`."""
        held = {name: asdict(value) for name, value in held_out.items()}
        return {"task": self.config.task.name, "data": asdict(self.splits.facts), "held_out": held}

    @property
    def policy(self) -> LengthPolicy:
        """What becomes of examples that are longer than a row."""
        return LengthPolicy(self.config.rows.length, self.config.rows.too_long)

    def artefacts(self, run: Path) -> dict[str, str]:
        """See `Stage.artefacts`."""
        adapter = {"adapter": str(run / "adapter")} if self.config.adapter.name != "none" else {}
        return {"started from": self.config.origin, **adapter}


def _its_own(origin: Path) -> dict[str, Any]:
    """What the model's own provenance says, if it has one, without its configuration."""
    file = origin / "provenance.json"
    known = json.loads(file.read_bytes()) if file.exists() else {}
    return {"provenance": {key: value for key, value in known.items() if key != "config"}} if known else {}
