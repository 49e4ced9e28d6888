"""`framework.pretrain` in which a rank comes to grief: `FAULT=KIND:RANK:MICRO` in the environment.

MICRO counts the rank's micro-batches. Only at the first start: where a launcher starts the ranks again, they fare well.
"""

import ctypes
import os
import signal
import time

from framework.pretrain import main
from framework.training.engine import Engine


def fail() -> None:
    raise ValueError("a bug that a test put there")


FAULTS = {
    "raise": fail,
    "sleep": lambda: time.sleep(3600),
    "hold": lambda: ctypes.PyDLL(None).sleep(3600),  # and never lets Python run
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "usr1": lambda: os.kill(os.getpid(), signal.SIGUSR1),
}

if __name__ == "__main__":
    kind, rank, micro = os.environ["FAULT"].split(":")
    forward_backward, calls = Engine._forward_backward, 0

    def faulty(*arguments, **options):
        global calls
        calls += 1
        if calls == int(micro) and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            FAULTS[kind]()
        return forward_backward(*arguments, **options)

    if os.environ["RANK"] == rank:
        Engine._forward_backward = faulty
    main()
