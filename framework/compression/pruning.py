"""Weights of least magnitude become 0."""

import torch
from torch import Tensor

from framework.config.compress import PruningConfig

HALF = 0.5  # the share that is dropped unless another is given


def prune(weight: Tensor, config: PruningConfig) -> Tensor:
    """The weight [out, in] with zeros.

    magnitude: of the whole matrix, the share of least magnitude (Han et al. 2015, arXiv:1506.02626).
    2:4: of each four inputs of an output in turn, the two of least magnitude (Mishra et al. 2021, arXiv:2104.08378),
    which GPUs from Ampere on can skip. Raises ValueError where `in` is no multiple of four.
    """
    if config.pattern == "2:4":
        fours = weight.unflatten(1, (-1, 4))
        least = fours.abs().argsort(dim=-1, stable=True)[..., :2]
        return fours.scatter(-1, least, 0.0).flatten(1)
    dropped = round((config.share or HALF) * weight.numel())
    least = weight.abs().flatten().argsort(stable=True)[:dropped]
    return weight.flatten().scatter(0, least, torch.zeros((), dtype=weight.dtype).expand(dropped)).view_as(weight)
