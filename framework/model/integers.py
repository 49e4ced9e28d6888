"""Weights held as integers, in files of the format compressed-tensors, which transformers and vLLM load.

A layer's weight [out, in] becomes integers q of 4 or 8 bits and scales, W = q * scale: a scale for each output or, with
a group, for each so many inputs of an output. Layers other than the matrices of the blocks stay as they were.

Source of the layout: https://github.com/vllm-project/compressed-tensors, formats `pack-quantized` and `int-quantized`.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framework.errors import UserError

_PACKED, _PLAIN = "pack-quantized", "int-quantized"
SCALE, PACKED, SHAPE = "weight_scale", "weight_packed", "weight_shape"


@dataclass(frozen=True)
class Scheme:
    """How weights are held.

    Attributes:
        bits: of an integer, 4 or 8.
        group: inputs that share a scale; 0: all of an output.
        activations: whether the inputs of a layer are made integers of 8 bits too, each token with a scale of its own.
    """

    bits: int
    group: int = 0
    activations: bool = False


@dataclass(frozen=True)
class Integers:
    """A weight: `values` int8 [out, in], and `scale` [out, in / group], or [out, 1]."""

    values: Tensor
    scale: Tensor

    def weight(self) -> Tensor:
        """Values times scales, in the dtype of the scales."""
        parts = self.values.unflatten(1, (self.scale.shape[1], -1)).to(self.scale.dtype)
        return (parts * self.scale[:, :, None]).flatten(1)


def to_files(name: str, integers: Integers, scheme: Scheme) -> dict[str, Tensor]:
    """The tensors of a layer under the names that the format gives them; `name` is the weight's."""
    layer = name.removesuffix("weight")
    scale = {layer + SCALE: integers.scale}
    if scheme.activations:
        return {name: integers.values, **scale}
    packed = _pack(integers.values, scheme.bits)
    return {layer + PACKED: packed, layer + SHAPE: torch.tensor(integers.values.shape), **scale}


def from_files(
    tensors: Mapping[str, Tensor], scheme: Scheme, file: str
) -> tuple[dict[str, Tensor], dict[str, Integers]]:
    """The other tensors, and by the name of its weight each layer that is held as integers.

    Raises UserError where a layer's tensors do not belong together.
    """
    others, found = dict(tensors), dict[str, Integers]()
    for key in tensors:
        if not key.endswith("." + SCALE):
            continue
        layer = key.removesuffix(SCALE)
        try:
            scale = others.pop(key)
            if scheme.activations:
                values = others.pop(f"{layer}weight")
            else:
                rows, columns = others.pop(layer + SHAPE).tolist()
                values = _unpack(others.pop(layer + PACKED), scheme.bits, columns)
                values = values.reshape(rows, columns)
            held = Integers(values, scale.reshape(values.shape[0], -1))
            held.weight()  # which shapes that do not fit refuse
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{file}: the integers of {layer[:-1]} are incomplete ({error}); copy it anew") from error
        found[f"{layer}weight"] = held
    return others, found


def quiet_torchao() -> None:
    """To be called before torchao is imported, which tells of every GPU library that it does without."""
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _pack(values: Tensor, bits: int) -> Tensor:
    """int8 [out, in] to int32 [out, in * bits / 32], the first value in the lowest bits, each plus 2**(bits - 1)."""
    raised = (values.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8).numpy()
    if bits == 4:
        raised = np.pad(raised, ((0, 0), (0, raised.shape[1] % 2)))
        raised = raised[:, ::2] | raised[:, 1::2] << 4
    whole = np.pad(raised, ((0, 0), (0, -raised.shape[1] % 4)))
    return torch.from_numpy(np.ascontiguousarray(whole).view("<i4").astype(np.int32))


def _unpack(packed: Tensor, bits: int, columns: int) -> Tensor:
    """What `_pack` packed."""
    raised = packed.contiguous().numpy().astype("<i4").view(np.uint8)
    if bits == 4:
        raised = np.stack((raised & 15, raised >> 4), axis=-1).reshape(len(raised), -1)
    return torch.from_numpy((raised[:, :columns].astype(np.int16) - 2 ** (bits - 1)).astype(np.int8))


# ---------------------------------------------------------------------------------------- config.json


def to_json(scheme: Scheme, ignored: Iterable[str]) -> dict[str, Any]:
    """`quantization_config` of config.json; ignored: the linear layers that are left as they were."""
    group = {"strategy": "group", "group_size": scheme.group} if scheme.group else {"strategy": "channel"}
    weights = {"num_bits": scheme.bits, "type": "int", "symmetric": True, "dynamic": False, **group}
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"}
    layers = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": inputs if scheme.activations else None,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": _PLAIN if scheme.activations else _PACKED,
        "quantization_status": "compressed",
        "config_groups": {"group_0": layers},
        "ignore": sorted(ignored),
    }


def from_json(data: Mapping[str, Any], file: str) -> Scheme | None:
    """How the weights of a config.json's directory are held; None where they are plain numbers.

    Raises UserError for a way that is not supported.
    """
    settings = data.get("quantization_config")
    if settings is None:
        return None
    try:
        (layers,) = settings["config_groups"].values()
        weights, inputs = layers["weights"], layers.get("input_activations")
        scheme = Scheme(weights["num_bits"], weights.get("group_size") or 0, inputs is not None)
        known = to_json(scheme, ())
        (expected,) = known["config_groups"].values()
        supported = (
            scheme.bits in ((8,) if scheme.activations else (4, 8))
            and _agree(settings, known, ("quant_method", "format"))
            and _agree(weights, expected["weights"], ("type", "symmetric", "dynamic", "strategy"))
            and (inputs is None or _agree(inputs, expected["input_activations"], tuple(expected["input_activations"])))
            and not layers.get("output_activations")
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        supported = False
    if not supported:
        raise UserError(
            f"{file}: quantization_config is of another kind than compressed-tensors with symmetric integers of 4 or 8 "
            "bits; give the model's directory as it was before, and python -m framework.compress it"
        )
    return scheme


def _agree(one: Mapping[str, Any], other: Mapping[str, Any], keys: Iterable[str]) -> bool:
    return all(one.get(key) == other[key] for key in keys)
