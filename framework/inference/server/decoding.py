"""The thread that runs the decoder, and what the event loop sees of it.

The decoder is single-threaded: it lives in a thread of its own, which takes what the loop asks for between two
steps. A text that nobody waits for any more therefore leaves its row within one step.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType

from framework.errors import UserError
from framework.inference.decoder import Decoder
from framework.inference.request import Piece, Request
from framework.inference.server.refusal import Refusal

logger = logging.getLogger("loam")

Batch = list[tuple[int, Piece]]  # by number of the text within its answer
CUT_OFF = Piece("", finish="length")
_LONGEST_WAIT = 60  # seconds that a refused client is told to wait, at most


class Answer:
    """The texts of one HTTP request on their way; leaving the `with` cancels those that have not ended.

    Only the event loop touches it. It holds no more than the request's own tokens, whether or not they are read.
    """

    def __init__(self, thread: "DecodingThread", texts: int) -> None:
        self._thread = thread
        self._arrived: asyncio.Queue[tuple[int, Piece | UserError] | None] = asyncio.Queue()
        self._open = set(range(texts))
        self._began = False
        self.keys = [thread.next_key() for _ in range(texts)]

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what has not ended."""
        for number in sorted(self._open):
            self._thread.cancel(self.keys[number])
        self._open.clear()

    def arrive(self, number: int, piece: Piece | UserError) -> None:
        """A piece of one of the texts, or why the decoder refuses it."""
        self._arrived.put_nowait((number, piece))

    def cut_off(self) -> None:
        """Let the texts end where they are."""
        self._arrived.put_nowait(None)

    async def batches(self, deadline: float) -> AsyncIterator[Batch]:
        """Pieces as they come, all that are there at once, until every text has ended.

        deadline: on the clock of the event loop. A text that has begun by then ends there, as by its length.
        Raises Refusal where none has begun by then, and for what the decoder refuses.
        """
        while self._open:
            batch = await self._next(deadline)
            for number, piece in batch:
                if piece.finish:
                    self._open.discard(number)
            if batch:
                yield batch

    async def _next(self, deadline: float) -> Batch:
        try:
            async with asyncio.timeout_at(deadline):
                arrived = [await self._arrived.get()]
        except TimeoutError:
            arrived = [None]
        while not self._arrived.empty():
            arrived.append(self._arrived.get_nowait())
        batch: Batch = []
        for one in arrived:
            if one is None:
                return batch + self._cut_off_rest(batch)
            number, piece = one
            if isinstance(piece, UserError):
                self._open.discard(number)
                raise Refusal(400, str(piece))
            batch.append((number, piece))
        self._began = True
        return batch

    def _cut_off_rest(self, batch: Batch) -> Batch:
        if self._thread.error is not None:
            raise Refusal(500, "the model failed; the server ends, its log says why")
        if not self._began and not batch:
            raise Refusal(503, "no row became free in time; try again later", retry_after=self._thread.wait())
        rest = self._open - {number for number, piece in batch if piece.finish}
        for number in rest:
            self._thread.cancel(self.keys[number])
        return [(number, CUT_OFF) for number in sorted(rest)]


class DecodingThread:
    """Runs a decoder and keeps count of what it was given.

    capacity: texts in it at once, running and waiting. failed: called in the event loop when the decoder raised,
    after which every answer ends with status 500. All but `_run` and what it calls is for the event loop.
    """

    def __init__(self, decoder: Decoder, capacity: int, failed: Callable[[], None]) -> None:
        self._decoder = decoder
        self._capacity = capacity
        self._failed = failed
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._keys = 0
        self._open: dict[int, tuple[Answer, int, float]] = {}  # by key: whose text, which of it, since when
        self._numbers: dict[int, int] = {}  # the decoder's number by key; of the thread
        self._key_of: dict[int, int] = {}
        self._seconds = 1.0  # that a text takes, of late
        self.error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)

    # ------------------------------------------------------------------------------- event loop

    @property
    def running(self) -> int:
        """Texts that have a row."""
        return self._decoder.running

    @property
    def waiting(self) -> int:
        """Texts that have none yet."""
        return max(len(self._open) - self.running, 0)

    def start(self) -> None:
        """Once, before the first answer."""
        self._thread.start()

    def stop(self) -> None:
        """After the step that runs; then the decoder is at rest."""
        self._inbox.put(None)
        self._thread.join()

    def next_key(self) -> int:
        """A number that no text had before."""
        self._keys += 1
        return self._keys

    def submit(self, requests: Sequence[Request]) -> Answer:
        """Let the texts wait for rows. Raises Refusal where there are too many of them."""
        if self.error is not None:
            raise Refusal(500, "the model failed; the server ends, its log says why")
        self.check_number(len(requests))
        if len(self._open) + len(requests) > self._capacity:
            wait = self.wait()
            raise Refusal(
                429,
                f"{len(self._open)} texts run or wait, of {self._capacity} that may; try again in {wait} s",
                code="rate_limit_exceeded",
                retry_after=wait,
            )
        answer = Answer(self, len(requests))
        now = self._loop.time()
        for number, (key, request) in enumerate(zip(answer.keys, requests, strict=True)):
            self._open[key] = (answer, number, now)
            self._inbox.put(lambda key=key, request=request: self._submit(key, request))  # type: ignore[misc]
        return answer

    def check_number(self, texts: int) -> None:
        """Raise Refusal for more texts in one request than there is ever room for."""
        if texts > self._capacity:
            raise Refusal(400, f"asks for {texts} texts at once; this server takes {self._capacity}")

    def wait(self) -> int:
        """Whole seconds after which there is likely room."""
        rounds = len(self._open) / max(self.running, 1)
        return min(max(round(self._seconds * rounds), 1), _LONGEST_WAIT)

    def cancel(self, key: int) -> None:
        """Nobody waits for this text any more."""
        if self._open.pop(key, None) is not None:
            self._inbox.put(lambda: self._cancel(key))

    def cut_off(self) -> None:
        """Let every text end where it is."""
        for answer in {id(answer): answer for answer, _, _ in self._open.values()}.values():
            answer.cut_off()

    def _arrive(self, arrived: list[tuple[int, Piece | UserError]]) -> None:
        for key, piece in arrived:
            if key not in self._open:  # cancelled meanwhile
                continue
            answer, number, since = self._open[key]
            if isinstance(piece, UserError) or piece.finish:
                del self._open[key]
                self._seconds += 0.1 * (self._loop.time() - since - self._seconds)
            answer.arrive(number, piece)

    def _fail(self, error: BaseException) -> None:
        self.error = error
        logger.error("the decoder failed", exc_info=error)
        self.cut_off()
        self._failed()

    # ------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        try:
            while self._take():
                pieces = self._decoder.step()
                if pieces:
                    self._tell([(self._key_of[number], piece) for number, piece in pieces])
                    for number, piece in pieces:
                        if piece.finish:
                            self._forget(number)
        except BaseException as error:  # told to everybody who waits, and ends the server
            self._loop.call_soon_threadsafe(self._fail, error)

    def _take(self) -> bool:
        """Do what was asked for meanwhile; with nothing to decode, wait for something. Whether to go on."""
        while True:
            idle = not (self._decoder.running or self._decoder.waiting)
            try:
                job = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if job is None:
                return False
            job()

    def _submit(self, key: int, request: Request) -> None:
        try:
            number = self._decoder.submit(request)
        except UserError as error:
            self._tell([(key, error)])
            return
        self._numbers[key], self._key_of[number] = number, key

    def _cancel(self, key: int) -> None:
        number = self._numbers.get(key)
        if number is not None:  # else it ended by itself
            self._decoder.cancel(number)
            self._forget(number)

    def _forget(self, number: int) -> None:
        del self._numbers[self._key_of.pop(number)]

    def _tell(self, pieces: Sequence[tuple[int, Piece | UserError]]) -> None:
        self._loop.call_soon_threadsafe(self._arrive, list(pieces))
