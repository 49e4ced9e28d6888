"""Weights to integers, by torchao."""

import torch
from torch import Tensor

from framework.config.compress import QuantizationConfig
from framework.model.integers import Integers, Scheme, quiet_torchao


def scheme_of(config: QuantizationConfig) -> Scheme:
    """How the weights will be held."""
    if config.name == "int4":
        return Scheme(4, config.group)
    return Scheme(8, activations=config.name == "int8_dynamic")


def quantize(weight: Tensor, config: QuantizationConfig) -> Integers:
    """Integers and scales nearest to a weight [out, in], symmetric about 0; scales in the dtype of the weight."""
    quiet_torchao()
    from torchao.quantization import PerRow
    from torchao.quantization.quantize_.workflows.int8.int8_tensor import Int8Tensor
    from torchao.quantization.quantize_.workflows.intx.intx_choose_qparams_algorithm import IntxChooseQParamsAlgorithm
    from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import IntxUnpackedToInt8Tensor

    if config.name != "int4":
        held = Int8Tensor.from_hp(weight.float(), PerRow())
    else:
        ways = IntxChooseQParamsAlgorithm
        way = ways.HQQ_SCALE_ONLY if config.scales == "hqq" else ways.AFFINE
        bits = torch.int4  # type: ignore[attr-defined]
        block = (1, config.group)
        held = IntxUnpackedToInt8Tensor.from_hp(weight.float(), block, bits, intx_choose_qparams_algorithm=way)
    return Integers(held.qdata, held.scale.to(weight.dtype).reshape(len(weight), -1))
