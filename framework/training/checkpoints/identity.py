"""What makes a resumed run the same run: the model, the seed, and everything that its batches depend on."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from framework.config import ObjectiveConfig, PretrainConfig, TrainingConfig
from framework.errors import UserError
from framework.stream.loader import Order, effective_weights
from framework.stream.manifest import Manifest

Identity = dict[str, Any]
OF_THE_ORDER = ("data", "corpora", "objective")  # parts that data.allow_change lets go on as a new order
NOT_OF_THE_ORDER = ("path", "tokens", "remote", "allow_change")  # fields of `data` that the order does not depend on


def identity(config: PretrainConfig, manifest: Manifest, origin: str = "") -> Identity:
    """What must not change over a run, as JSON; `origin` is the digest of the model it started from, or empty."""
    data = {key: value for key, value in asdict(config.data).items() if key not in NOT_OF_THE_ORDER}
    data["weights"] = effective_weights(manifest, config.data.weights)
    data["length_changes"] = _plain(config.data.length_changes)
    return {
        "model": asdict(config.model) | {"from": origin},
        "run": {"seed": config.run.seed},
        "tokenizer": {"sha256": manifest.tokenizer_sha256},
        "data": data,
        "objective": asdict(config.objective),
        "corpora": {name: corpus.digest for name, corpus in manifest.corpora.items() if data["weights"].get(name)},
    }


def orders(
    saved: list[dict[str, Any]], now: Identity, place: str, position: int, allow_change: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """The orders of a run that goes on with `now`: those of its checkpoint, and a new one if the data changed.

    Args:
        saved: `began_at` and `identity` of each order so far.
        place: of the checkpoint, for messages.
        position: sequences consumed.
        allow_change: `data.allow_change`.

    Returns:
        The orders, and a line for each change.

    Raises:
        UserError: something changed that must not.
    """
    changes = list(_differences(saved[-1]["identity"], now))
    for part, field, was, has in changes:
        if not (allow_change and part in OF_THE_ORDER):
            remedy = "set it back, or choose another run.name"
            if part in OF_THE_ORDER:
                remedy += ", or go on in a new order with data.allow_change=true"
            raise UserError(f"{part}.{field}: is {has}, {place} has {was}; {remedy}")
    if not changes:
        return saved, []
    lines = [f"{part}.{field}: was {was}, is {has}" for part, field, was, has in changes]
    lines.append(f"order {len(saved)} of the data begins at sequence {position}, as data.allow_change says")
    return [*saved, {"began_at": position, "identity": now}], lines


def current(history: list[dict[str, Any]]) -> Order:
    """The order in force."""
    return Order(len(history) - 1, history[-1]["began_at"])


def require_same_optimizer(saved: dict[str, Any], config: TrainingConfig, place: str) -> None:
    """Raise UserError unless a checkpoint's moments are those of the optimizer that is to go on from them."""
    was, name = saved["optimizer"].get("name", "adamw"), config.optimizer.name
    if was != name:
        raise UserError(
            f"optimizer.name: is {name}, {place} was written with {was}, whose moments {name} cannot go on from; "
            f"set it back to {was}, or choose another run.name"
        )


def other_settings(saved: dict[str, Any], config: TrainingConfig) -> list[str]:
    """A line for each setting that may change over a run, has changed, and changes what is learnt."""
    now = asdict(config)
    return [
        f"{group}.{field}: was {was}, is {now[group][field]}"
        for group in ("batch", "loss", "optimizer", "schedule", "ema", "precision", "guard")
        for field, was in saved.get(group, {}).items()
        if field != "micro" and _plain(now[group].get(field)) != was
    ]


def _plain(value: Any) -> Any:
    """As JSON has it: keys are strings."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


def _differences(saved: Identity, now: Identity) -> Iterator[tuple[str, str, Any, Any]]:
    """(part, field, was, is) of every field that differs."""
    # what checkpoints of before have not
    model = {"causal": True, "from": "", "mup_base_width": 0, "mup_base_head_size": 0}
    since = {"objective": asdict(ObjectiveConfig()), "model": model}
    for part, value in now.items():
        was_in = {field: was for field, was in since.get(part, {}).items() if field in value} | saved.get(part, {})
        for field in {**was_in, **value}:
            if was_in.get(field) != value.get(field):
                yield part, field, was_in.get(field), value.get(field)
