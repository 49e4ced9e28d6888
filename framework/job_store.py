"""The job's key-value store (torch.distributed.Store): where ranks meet, and pin up what others should know."""

import os
import time
import uuid
from datetime import timedelta
from typing import Any

from framework.errors import UserError

LOOK = 0.02  # seconds between two looks
LONGEST_WAIT = timedelta(minutes=30)  # for ranks that have yet to start


def connect(seconds: float) -> Any:
    """A connection of its own to the store that the launcher, or else rank 0, keeps.

    seconds: that connecting, and each request, may take; a RuntimeError afterwards.
    """
    from torch.distributed import TCPStore

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=seconds), wait_for_workers=False)


def kept_by_launcher() -> bool:
    """Whether the store outlives the ranks: torchrun's does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def agree_on_start(store: Any, rank: int, ranks: int) -> str:
    """A name for this start of the job, the same on all its ranks and on none of an earlier start's.

    torchrun 2.13 keeps one store over its restarts. Ranks that were started again would find in it where those that
    were killed had listened, and sometimes did. And its count of restarts is one of each machine, not of the job. So
    every other rank asks under a name that nobody had before, which rank 0 answers; what it answers to the dead, no
    one reads.
    """
    own = uuid.uuid4().hex
    if rank != 0:
        store.set(f"asks/{rank}", own)
        name = store.get(f"answer/{own}").decode()
        store.set(f"{name}/heard/{rank}", "")
        return str(name)
    missing, deadline = set(range(1, ranks)), time.monotonic() + LONGEST_WAIT.total_seconds()
    while missing:
        for other in sorted(missing):
            if store.check([f"{own}/heard/{other}"]):
                missing.remove(other)
            elif store.check([f"asks/{other}"]):
                store.set(f"answer/{store.get(f'asks/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise UserError(f"ranks: {sorted(missing)} of {ranks} have not started; see to them and start again")
        time.sleep(LOOK)
    return own
