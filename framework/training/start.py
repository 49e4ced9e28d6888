"""Before the first step: does everything go together, and where does the run stand?"""

import logging
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framework import distributed
from framework.config import PretrainConfig, TrainingConfig
from framework.distributed import agreed, together
from framework.errors import UserError
from framework.model.families import check_exportable
from framework.model.huggingface import parameter_shapes
from framework.model.tokenizer import load_tokenizer, read_json
from framework.model.tokenizer_files import open_own
from framework.stream.manifest import Manifest, copy_tokenizer
from framework.training.checkpoints.identity import orders, other_settings, require_same_optimizer
from framework.training.checkpoints.reader import Checkpoint, newest_sound
from framework.training.checkpoints.store import LocalStore, open_source, open_store
from framework.training.handoff import handed_over
from framework.training.optimization.optimizer import check_no_decay
from framework.training.origin import check_tokenizer
from framework.training.stage import Stage

logger = logging.getLogger("loam")


def settle_model(config: PretrainConfig, manifest: Manifest) -> None:
    """The vocabulary is the tokenizer's; and what is trained must be exportable, which shows now, not at the end."""
    if config.model.vocabulary_size == 0:
        config.model.vocabulary_size = manifest.vocabulary_size
    if config.model.vocabulary_size < manifest.vocabulary_size:
        raise UserError(
            f"model.vocabulary_size: {config.model.vocabulary_size} is less than the {manifest.vocabulary_size} ids of "
            f"{manifest.tokenizer}; leave it at 0 to take the tokenizer's"
        )
    check_exportable(config.model)
    check_no_decay(config.optimizer, list(parameter_shapes(config.model)))


def keep_tokenizer(manifest: Manifest, run: Path, origin: str) -> None:
    """Rank 0 keeps the tokenizer in the run directory, after a look whether the hand-off will take it.

    origin: the model directory whose weights the run is about to start from, if any; it has to have this tokenizer.
    """
    if distributed.rank() != 0:
        return
    kept = copy_tokenizer(manifest, run)
    tokenizer = load_tokenizer(kept) if kept.is_dir() else open_own(kept, run)
    opens = read_json(kept / "generation_config.json").get("bos_token_id") if kept.is_dir() else tokenizer.begin
    if (tokenizer.size, opens) != (manifest.vocabulary_size, manifest.end_of_text):
        raise UserError(
            f"{manifest.path}: says {manifest.vocabulary_size} ids and end of text {manifest.end_of_text}, "
            f"{manifest.tokenizer} has {tokenizer.size} and {opens}; prepare the data again"
        )
    if manifest.reserved and manifest.reserved != tokenizer.reserved:
        raise UserError(
            f"{manifest.path}: the reserved ids it lists are not those of {manifest.tokenizer}; prepare the data again"
        )
    if origin:
        check_tokenizer(origin, manifest, kept)


def checkpoint_to_resume(
    run: Path, config: TrainingConfig, stage: Stage
) -> tuple[Checkpoint | None, list[dict[str, Any]]]:
    """The checkpoint to go on from, and the orders of the data that the run has had."""
    store = open_store(run, config.checkpoint)
    if not store.remote and distributed.ranks_here() < distributed.world_size():
        _require_shared(store)
    found = None
    if config.run.resume == "never":
        together(lambda: _refuse_existing(store))
    else:
        found = _newest_of_this_model(store, config, stage)
    if found is None and config.checkpoint.start_from:
        found = _newest_of_this_model(open_source(run, config.checkpoint), config, stage)
        if found is None:
            problem = f"checkpoint.start_from: {config.checkpoint.start_from} has no checkpoint"
            raise agreed(UserError(f"{problem}; name a directory or URL that holds step-*/manifest.json"))
    now = stage.identity(found)
    if found is None:
        return None, [{"began_at": 0, "identity": now}]
    state = found.state
    together(lambda: require_same_optimizer(state["config"], config, found.place))
    history, changes = together(
        lambda: orders(state["orders"], now, found.place, state["sequences"], stage.allow_change)
    )
    finished = is_finished(found, run, config)
    for line in changes:
        say(line)
    for line in other_settings(state["config"], config):
        say(f"{line}, {'which a run that is complete does not take up' if finished else 'from here on'}")
    return found, history


def _require_shared(store: LocalStore) -> None:
    """Raise UserError if a rank does not see what rank 0 writes: its part of a checkpoint would be lost."""
    name = distributed.broadcast(uuid.uuid4().hex)
    together(lambda: store.set_mark(name) if distributed.rank() == 0 else None)
    try:
        together(lambda: store.require_mark(name))
    finally:
        if distributed.rank() == 0:
            store.remove_mark(name)


def is_finished(found: Checkpoint, run: Path, config: TrainingConfig) -> bool:
    """Whether all steps are done, and the model was handed over."""
    return found.state["step"] >= config.schedule.steps and handed_over(run)


def _newest_of_this_model(store: LocalStore, config: TrainingConfig, stage: Stage) -> Checkpoint | None:
    """The newest sound checkpoint; what is passed over is told."""
    model = {field: value for field, value in asdict(config.model).items() if field not in ("from", "path")}
    now = asdict(config)
    groups: dict[str, dict[str, Any]] = {
        "model": model,
        **{name: now[name] for name in ("task", "freeze", "adapter") if name in now},
    }

    def foreign(checkpoint: Checkpoint) -> str | None:
        for group, fields in groups.items():  # of the last three, whatever decides which parameters there are
            was = checkpoint.state["config"].get(group, {})
            for field, value in fields.items():
                if was.get(field, value) != value:
                    return f"it is another model's: its {group}.{field} is {was[field]}"
        return None

    shapes = {name: tuple(shape) for name, shape in stage.shapes().items()}
    found, passed_over = newest_sound(store, shapes, foreign)
    for line in passed_over:
        say(line)
    return found


def _refuse_existing(store: LocalStore) -> None:
    if store.steps():
        raise UserError(
            f"run.name: {store.place(store.steps()[0])} exists and run.resume=never; choose another name or "
            "run.resume=auto"
        )


def say(message: str) -> None:
    """On the console once, in the log of every rank."""
    logger.info(message)
    if distributed.rank() == 0:
        print(message, flush=True)
