"""What the ranks of a job tell one another before there is a process group: over the launcher's key-value store.

Nothing here waits without end: a rank that is not there, or cannot be heard, is a finding.
"""

import json
import os
import time
from datetime import timedelta
from typing import Any

from framework import distributed, job_store
from framework.errors import UserError

LOOK = 0.05  # seconds between two looks


class Board:
    """Keys that every rank can set and read.

    Args:
        wait: seconds that ranks wait for one another.

    Raises:
        UserError: the store cannot be reached.
    """

    def __init__(self, wait: float) -> None:
        self.rank, self.ranks, self.wait = distributed.rank(), distributed.world_size(), wait
        self.store: Any = None
        if self.ranks > 1:
            distributed.require_environment()
            self.store = self._connect()

    def _connect(self) -> Any:
        from torch.distributed import PrefixStore, TCPStore

        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            if job_store.kept_by_launcher():
                store = job_store.connect(self.wait)
            else:
                patience = timedelta(seconds=self.wait)
                store = TCPStore(host, port, None, self.rank == 0, timeout=patience, wait_for_workers=False)
        except RuntimeError as error:
            raise UserError(
                f"MASTER_ADDR={host}, port {port}: rank {self.rank} cannot reach the job's store there "
                f"({_first_line(error)}); see that it is the address of rank 0's machine, and no firewall between"
            ) from error
        return PrefixStore("doctor", store)

    def exchange(self, name: str, item: Any, patience: float | None = None) -> list[Any]:
        """The `item` (as JSON holds it) of every rank, in rank order; None for ranks that say nothing in time.

        Args:
            name: of what is exchanged; each only once.
            item: this rank's.
            patience: seconds; by default `wait`.
        """
        if self.store is None:
            return [item]
        items: list[Any] = [None] * self.ranks
        deadline = time.monotonic() + (self.wait if patience is None else patience)
        try:
            self.store.set(f"{name}/{self.rank}", json.dumps(item))
            missing = set(range(self.ranks))
            while missing:
                for rank in sorted(missing):
                    if self.store.check([f"{name}/{rank}"]):
                        items[rank] = json.loads(self.store.get(f"{name}/{rank}"))
                        missing.remove(rank)
                if time.monotonic() > deadline:
                    break
                time.sleep(LOOK)
        except RuntimeError as error:
            raise UserError(
                f"the job's store no longer answers rank {self.rank} ({_first_line(error)}); see to the machine of "
                "rank 0"
            ) from error
        return items

    def part(self) -> None:
        """All is said; rank 0, which may keep the store, leaves last."""
        if self.store is None:
            return
        self.store.set(f"parted/{self.rank}", "")
        deadline = time.monotonic() + self.wait
        while self.rank == 0 and time.monotonic() < deadline:
            if self.store.check([f"parted/{rank}" for rank in range(self.ranks)]):
                return
            time.sleep(LOOK)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
