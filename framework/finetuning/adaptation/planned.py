"""What a fine-tuning would train and what it would leave, without any weights: for a plan."""

from dataclasses import replace

import torch

from framework.config import AdaptationConfig, ModelConfig
from framework.finetuning.adaptation.adapt import adapt
from framework.finetuning.adaptation.quantized import BLOCK
from framework.finetuning.adaptation.targets import matching_layers
from framework.model.classifier import Classifier
from framework.model.transformer import Transformer

# NF4: 4 bits, of each block a scale in 8 bits, and of 256 of these one in fp32 (arXiv:2305.14314, section 3)
PACKED_BYTES = 0.5 + 1 / BLOCK + 4 / (256 * BLOCK)
_CLASSES = 2  # of a classifier; more of them weigh next to nothing

Shapes = dict[str, tuple[int, ...]]


def adapted_shapes(
    model: ModelConfig, config: AdaptationConfig, classifies: bool = False
) -> tuple[Shapes, Shapes, float]:
    """Shapes of what is trained, of what is not, and bytes of what is held in 4 bits.

    Raises:
        UserError: as `adapt`.
    """
    with torch.device("meta"):
        module = Classifier(model, _CLASSES) if classifies else Transformer(model)
    adapter = replace(config.adapter, name="lora") if config.adapter.name == "qlora" else config.adapter
    adapt(module, AdaptationConfig(adapter, config.freeze), seed=0, heads=("score.", "dense.") if classifies else ())
    trained = {name: tuple(p.shape) for name, p in module.named_parameters() if p.requires_grad}
    frozen = {name: tuple(p.shape) for name, p in module.named_parameters() if not p.requires_grad}
    packed = 0.0
    if config.adapter.name == "qlora":
        for layer in matching_layers(model, config.adapter.targets):
            rows, columns = frozen.pop(f"{layer}.weight")
            packed += rows * columns * PACKED_BYTES
    return trained, frozen, packed
