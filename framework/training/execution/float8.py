"""Matrix products of the blocks in 8-bit floating point, by torchao."""

from torch import nn

ALIGNMENT = 16  # the GPU's products take matrices whose sides it divides


def use_float8(model: nn.Module) -> None:
    """Exchange the block's linear layers for torchao's, which scale each tensor to E4M3 or E5M2 (arXiv:2209.05433).

    Weights keep their names, shapes and precision; embedding and output projection stay as they are, as what they
    make is the most sensitive to rounding.
    """
    from torchao.float8 import convert_to_float8_training

    names = set(float8_layers(model))
    convert_to_float8_training(model, module_filter_fn=lambda _layer, name: name in names)


def float8_layers(model: nn.Module) -> list[str]:
    """Names of the layers whose product is in float8: those of the blocks with sides that 16 divides."""
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and name.startswith("blocks.")
        and not (layer.in_features % ALIGNMENT or layer.out_features % ALIGNMENT)
    ]
