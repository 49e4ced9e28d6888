"""Master weights and optimizer moments, whole and by plain name, out of and into any ZeRO stage.

One parameter at a time, so that no rank ever holds more than one whole parameter beyond its shards.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from framework import distributed
from framework.training.engine import Engine

MASTER = "master"  # the fp32 weight
MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's first and second moment
FIELDS = (MASTER, *MOMENTS)


def owners(module: nn.Module, world_size: int) -> dict[str, int]:
    """Which rank writes which parameter: each goes to the rank with the fewest elements so far."""
    load = [0] * world_size
    owner = {}
    for name, parameter in module.named_parameters():
        lightest = load.index(min(load))
        owner[name] = lightest
        load[lightest] += element_count(parameter)
    return owner


def element_count(parameter: nn.Parameter) -> int:
    """Elements of the whole parameter; under ZeRO-3 what is here may be a shard or nothing."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def collect(engine: Engine, fields: tuple[str, ...] = FIELDS) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each parameter's name and its fields, whole, in fp32. Every rank must walk to the end: it is collective."""
    _link_moments(engine)
    for name, parameter in engine.module.named_parameters():
        yield name, {field: _get(engine, parameter, field) for field in fields}


def owned_state(engine: Engine) -> dict[str, Tensor]:
    """What this rank writes to a checkpoint: `NAME/FIELD` to a tensor in host memory."""
    if not optimizer_steps(engine):  # a run whose every update was withheld so far has no moments yet
        engine.prime()
        _set_optimizer_steps(engine, 0)
    owner = owners(engine.module, distributed.world_size())
    mine = {}
    for name, values in collect(engine):
        if owner[name] == distributed.rank():
            mine.update({f"{name}/{field}": value.detach().cpu().clone() for field, value in values.items()})
    return mine


def whole_weights(engine: Engine) -> dict[str, Tensor]:
    """Every master weight by plain name, in host memory of rank 0; empty on the others."""
    lead = distributed.rank() == 0
    return {name: values[MASTER].detach().cpu().clone() for name, values in collect(engine, (MASTER,)) if lead}


def optimizer_steps(engine: Engine) -> int:
    """How many updates the optimizer has made; AdamW's bias correction depends on it."""
    for state in _torch_optimizer(engine).state.values():
        if "step" in state:
            return int(state["step"])
    return 0


def restore(engine: Engine, read: Callable[[str, str], Tensor], steps: int) -> None:
    """Set every weight and moment to `read(name, field)`, and the optimizer's count of updates.

    Whether the engine is new or has been training: the copies that the module computes with are set too, as
    they would follow the master weights only at the next update.
    """
    if not optimizer_steps(engine):
        engine.prime()
    _link_moments(engine)
    for name, parameter in engine.module.named_parameters():
        for field in FIELDS:
            value = read(name, field).to(engine.device, torch.float32)
            _set(engine, parameter, field, value)
            if field == MASTER:
                _set_working_copy(engine, parameter, value)
    _set_optimizer_steps(engine, steps)


def _set_optimizer_steps(engine: Engine, steps: int) -> None:
    optimizer = _torch_optimizer(engine)
    for state in optimizer.state.values():
        if "step" in state:
            state["step"] = torch.full_like(state["step"], steps) if torch.is_tensor(state["step"]) else steps
    for group in optimizer.param_groups:
        if "step" in group:
            group["step"] = steps


def _link_moments(engine: Engine) -> None:
    """Make DeepSpeed's stages 1 and 2 find the moments of every parameter group.

    Version 0.19 links them once, after the first group's first update, when the state of the other groups
    does not exist yet; `safe_get_full_optimizer_state` then fails for those.
    """
    if hasattr(engine.optimizer, "_hp_optimizer_states_linked"):
        engine.optimizer._hp_optimizer_states_linked = False
        engine.optimizer._lazy_init_hp_params_optimizer_state()


def _get(engine: Engine, parameter: nn.Parameter, field: str) -> Tensor:
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

    if engine.plain:
        return parameter.data if field == MASTER else engine.optimizer.state[parameter][field]
    if field == MASTER:
        return safe_get_full_fp32_param(parameter)
    return safe_get_full_optimizer_state(parameter, field)


def _set(engine: Engine, parameter: nn.Parameter, field: str, value: Tensor) -> None:
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    if engine.plain:
        target = parameter.data if field == MASTER else engine.optimizer.state[parameter][field]
        target.copy_(value)
    elif engine.stage == 3:
        # safe_set_full_... cuts the value into equal parts and fails where the ranks do not divide its size
        part = _stage3_part(parameter, value)
        if field == MASTER:
            safe_set_local_fp32_param(parameter, part)
        else:
            safe_set_local_optimizer_state(parameter, part, field)
    elif field == MASTER:
        safe_set_full_fp32_param(parameter, value)
    else:
        safe_set_full_optimizer_state(parameter, value, field)


def _set_working_copy(engine: Engine, parameter: Any, value: Tensor) -> None:
    """The weight that the module computes with, which under ZeRO is another than the master weight.

    Under ZeRO-3 it is this rank's part, and the whole of it only where DeepSpeed keeps small ones gathered.
    """
    if engine.stage == 3:
        parameter.ds_tensor.data.copy_(_stage3_part(parameter, value))
    if parameter.data.numel() == value.numel():
        parameter.data.copy_(value)


def _stage3_part(parameter: Any, value: Tensor) -> Tensor:
    """This rank's part of a parameter under ZeRO-3: equal parts of the flat value, the last one padded."""
    size = parameter.ds_tensor.numel()
    padded = torch.zeros(size * distributed.world_size(), dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    return padded.narrow(0, size * distributed.rank(), size)


def _torch_optimizer(engine: Engine) -> torch.optim.Optimizer:
    """The AdamW inside whatever DeepSpeed wrapped around it."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)
