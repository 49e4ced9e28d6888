"""Layers that compute with integer weights, by torchao, rather than with what the integers stand for."""

import importlib.util
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from framework.model.integers import Integers, Scheme, quiet_torchao
from framework.model.transformer import Transformer


def hold(model: Transformer, scheme: Scheme, integers: Mapping[str, Integers]) -> bool:
    """Put integers in the place of the weights that they stand for; without torchao nothing is done.

    Integers of 4 bits take 8 in memory, and are made numbers anew in each product: torchao's kernels for 4 bits are
    for other layouts and GPUs.

    Returns:
        Whether they were put there.
    """
    if importlib.util.find_spec("torchao") is None:
        return False
    for name, held in integers.items():
        linear = model.get_submodule(name.removesuffix(".weight"))
        assert isinstance(linear, nn.Linear)
        device, dtype = linear.weight.device, linear.weight.dtype
        moved = Integers(held.values.to(device), held.scale.to(device, dtype))
        linear.weight = nn.Parameter(_tensor(moved, scheme, dtype), requires_grad=False)
    return True


def _tensor(held: Integers, scheme: Scheme, dtype: torch.dtype) -> Tensor:
    """A tensor of torchao's, with which `nn.Linear` computes as with any."""
    quiet_torchao()
    from torchao.quantization import PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor, QuantizeTensorToInt8Kwargs
    from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import IntxUnpackedToInt8Tensor

    columns = held.values.shape[1]
    if scheme.bits == 8 and not scheme.group:
        inputs = QuantizeTensorToInt8Kwargs(granularity=PerRow()) if scheme.activations else None
        return Int8Tensor(held.values, held.scale, [1, columns], dtype, act_quant_kwargs=inputs)
    zero = torch.zeros_like(held.scale, dtype=torch.int8)
    kind = torch.int4 if scheme.bits == 4 else torch.int8  # type: ignore[attr-defined]
    return IntxUnpackedToInt8Tensor(held.values, held.scale, zero, kind, (1, scheme.group or columns), dtype, None)
