"""Texts to ids beside the event loop, one request at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Reader:
    """A thread for what takes long with long texts.

    One, as neither a compiled chat template nor a tokenizer of the tokenizers library may be used by two at once.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reading")

    async def read(self, work: Callable[[], T]) -> T:
        """The outcome of `work`, without holding up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
