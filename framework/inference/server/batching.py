"""Requests that need one pass of a classifier or an encoder, put together into batches in a thread of their own."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from framework.inference.server.refusal import Refusal

logger = logging.getLogger("loam")

Rows = NDArray[np.float32]  # one for each text
BATCH = 32  # texts that are handed over together; a longer request is handed over in parts


class BatchingThread:
    """Hands the texts of concurrent requests to `compute` together, the oldest first.

    compute: texts as ids to rows. capacity: requests that may wait.
    """

    def __init__(self, compute: Callable[[Sequence[list[int]]], Rows], capacity: int) -> None:
        self._compute = compute
        self._capacity = capacity
        self._waiting: deque[tuple[list[int], Future[Rows]]] = deque()
        self._requests = 0
        self._changed = threading.Condition()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="batching", daemon=True)

    @property
    def running(self) -> int:
        """Requests that are in work or wait."""
        return self._requests

    @property
    def waiting(self) -> int:
        """Texts that are in no batch yet."""
        return len(self._waiting)

    def cut_off(self) -> None:
        """A batch takes no longer than it takes; there is nothing to end early."""

    def start(self) -> None:
        """Once, before the first request."""
        self._thread.start()

    def stop(self) -> None:
        """After the batch that runs."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join()

    async def rows(self, texts: Sequence[list[int]]) -> Rows:
        """A row for each text as ids. Raises Refusal where too many requests wait; cancelled, they are left out."""
        if self._requests >= self._capacity:
            raise Refusal(
                429, f"{self._requests} requests wait, as many as may", code="rate_limit_exceeded", retry_after=1
            )
        futures: list[Future[Rows]] = [Future() for _ in texts]
        self._requests += 1
        try:
            with self._changed:
                self._waiting.extend(zip(texts, futures, strict=True))
                self._changed.notify()
            return np.stack(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        finally:
            self._requests -= 1
            for future in futures:
                future.cancel()

    def _run(self) -> None:
        while batch := self._next():
            try:
                rows = self._compute([ids for ids, _ in batch])
            except Exception as error:
                logger.exception("the model failed")
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                future.set_result(row)

    def _next(self) -> list[tuple[list[int], Future[Rows]]]:
        """The oldest texts that somebody still waits for; none at the end."""
        batch: list[tuple[list[int], Future[Rows]]] = []
        with self._changed:
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self._ends)
                if self._ends:
                    return []
                while self._waiting and len(batch) < BATCH:
                    ids, future = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        batch.append((ids, future))
        return batch
