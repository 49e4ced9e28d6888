"""`framework.pretrain`, with a loss on one rank that is not a number in the steps that the environment names.

POISON="RANK:STEP,STEP,...": counted from the start of this process.
"""

import os

from framework import distributed
from framework.pretrain import main
from framework.training.engine import Engine

rank, _, steps = os.environ["POISON"].partition(":")
POISONED = {int(step) for step in steps.split(",")} if distributed.rank() == int(rank) else set()
step, forward_backward, calls = Engine.step, Engine._forward_backward, [0]


def counted_step(self, *arguments):
    calls[0] += 1
    return step(self, *arguments)


def poisoned_forward_backward(self, micro, scale):
    if calls[0] not in POISONED:
        return forward_backward(self, micro, scale)
    return forward_backward(self, micro, float("nan")) * float("nan")


Engine.step, Engine._forward_backward = counted_step, poisoned_forward_backward

if __name__ == "__main__":
    main()
