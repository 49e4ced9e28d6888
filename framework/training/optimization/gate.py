"""An optimizer's update, made or withheld when the gradients are known and nothing has changed yet.

Every ZeRO stage of DeepSpeed reduces the gradients, takes their global norm, clips, and then calls `step` of the
torch optimizer within, once for each group of weights. torch's own hooks around that call are the one place that
all stages, precisions and optimizers have in common. A parameter without gradient is no concern of a torch
optimizer: weight, moments and count of updates stay. So to withhold an update, gradients are hidden from it, and
given back after it for DeepSpeed to dispose of as ever. What DeepSpeed then copies from the master weights into
the low-precision ones is what they were.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Gate:
    """Stands before the updates of an optimizer.

    Args:
        optimizer: torch's, within whatever DeepSpeed wrapped around it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._judge: Callable[[], bool] | None = None
        self._admitted: bool | None = None
        self._hidden: list[tuple[Tensor, Tensor]] = []
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def pass_through(self, update: Callable[[], None], judge: Callable[[], bool]) -> bool:
        """Run `update`, whose changes to weights and optimizer are made if `judge()` says so. Returns whether it did.

        `judge` is asked exactly once: before the first change, or after an update that DeepSpeed itself gave up
        because the norm is not finite. It may be collective.
        """
        self._judge, self._admitted = judge, None
        update()
        self._judge = None
        if self._admitted is None:
            judge()
        return bool(self._admitted)

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._judge is None or self._hidden:  # an optimizer that calls another's step is asked twice
            return
        if self._admitted is None:
            self._admitted = self._judge()
        if not self._admitted:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:  # as after the first of two calls, where `step` calls that of its class
                        self._hidden.append((weight, weight.grad))
                        weight.grad = None

    def _after(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for weight, gradient in self._hidden:
            weight.grad = gradient
        self._hidden = []
