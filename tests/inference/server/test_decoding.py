"""The thread between the event loop and the decoder, with a decoder that waits to be told to go on."""

import asyncio
import queue

import pytest

from framework.errors import UserError
from framework.inference.request import Piece, Request
from framework.inference.sampling import GREEDY
from framework.inference.server.decoding import DecodingThread
from framework.inference.server.refusal import Refusal


class Patient:
    """Adds "x" to each of its requests at every step that the test allows; refuses prompts of token 9."""

    def __init__(self) -> None:
        self.allowed: queue.Queue[str] = queue.Queue()
        self.open: dict[int, int] = {}
        self.seen: list[tuple[str, int]] = []
        self.numbers = 0

    @property
    def running(self) -> int:
        return len(self.open)

    waiting = 0

    def submit(self, request):
        if request.tokens == (9,):
            raise UserError("prompt: has token 9")
        self.numbers += 1
        self.open[self.numbers] = request.maximum_tokens
        self.seen.append(("submit", self.numbers))
        return self.numbers

    def cancel(self, number):
        self.open.pop(number, None)
        self.seen.append(("cancel", number))

    def step(self):
        if self.allowed.get() == "fail":
            raise RuntimeError("no memory left")
        self.seen.append(("step", self.running))
        pieces = []
        for number in list(self.open):
            self.open[number] -= 1
            finish = None if self.open[number] else "length"
            pieces.append((number, Piece("x", (1,), finish=finish)))
            if finish:
                del self.open[number]
        return pieces


def run(test, capacity=4):
    """Run a coroutine of the thread and its decoder, and end the thread."""

    async def work():
        decoder, failures = Patient(), []
        thread = DecodingThread(decoder, capacity, lambda: failures.append(1))
        thread.start()
        try:
            return await test(thread, decoder, failures)
        finally:
            for _ in range(50):
                decoder.allowed.put("on")
            thread.stop()

    return asyncio.run(work())


def request(count=3, token=1):
    return Request((token,), count, GREEDY)


def far():
    return asyncio.get_running_loop().time() + 20


async def text(batches):
    parts = [piece async for batch in batches for _, piece in batch]
    return "".join(part.text for part in parts), parts[-1].finish


async def settled(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


def test_who_leaves_is_out_of_the_decoder_before_its_next_step():
    async def test(thread, decoder, _):
        stays, leaves = thread.submit([request(4)]), thread.submit([request(100)])
        reading = asyncio.create_task(text(stays.batches(far())))
        await settled(lambda: decoder.running)
        decoder.allowed.put("on")
        await settled(lambda: ("step", 2) in decoder.seen or ("step", 1) in decoder.seen)
        leaves.close()  # while a step may be under way
        await asyncio.sleep(0.02)
        at = len(decoder.seen)
        for _ in range(6):
            decoder.allowed.put("on")
        assert await reading == ("xxxx", "length")
        later = decoder.seen[at:]
        assert ("cancel", 2) in later
        assert sum(one[0] == "step" for one in later[: later.index(("cancel", 2))]) <= 1  # the one under way
        assert all(one[1] <= 1 for one in later[later.index(("cancel", 2)) :] if one[0] == "step")
        assert thread.waiting == thread.running == 0

    run(test)


def test_the_room_is_counted_in_texts_and_given_back():
    async def test(thread, decoder, _):
        with thread.submit([request(), request()]), thread.submit([request()]):
            with pytest.raises(Refusal) as refused:
                thread.submit([request(), request()])
            assert refused.value.status == 429
            assert refused.value.retry_after >= 1
            with thread.submit([request()]):
                pass
        with pytest.raises(Refusal, match="asks for 5 texts at once; this server takes 4"):
            thread.submit([request()] * 5)
        with thread.submit([request(1)] * 4) as answer:
            for _ in range(20):
                decoder.allowed.put("on")
            found = [number async for batch in answer.batches(far()) for number, _ in batch]
            assert sorted(found) == [0, 1, 2, 3]

    run(test)


def test_what_the_decoder_refuses_is_told_and_frees_its_place():
    async def test(thread, decoder, _):
        with thread.submit([request(token=9)]) as answer:
            with pytest.raises(Refusal, match="has token 9") as refused:
                await text(answer.batches(far()))
            assert refused.value.status == 400
        with thread.submit([request(1)] * 4) as answer:
            decoder.allowed.put("on")
            decoder.allowed.put("on")
            assert (await text(answer.batches(far())))[1] == "length"

    run(test)


def test_a_text_whose_time_is_over_ends_where_it_is_and_one_that_waits_is_refused():
    async def test(thread, decoder, _):
        loop = asyncio.get_running_loop()
        with thread.submit([request(100)]) as begun:
            decoder.allowed.put("on")
            assert await text(begun.batches(loop.time() + 0.2)) == ("x", "length")
        with thread.submit([request(100)]) as waits, pytest.raises(Refusal) as refused:
            await text(waits.batches(loop.time() + 0.05))
        assert refused.value.status == 503
        decoder.allowed.put("on")
        await settled(lambda: decoder.running == 0)

    run(test)


def test_all_end_where_they_are_when_the_server_has_to():
    async def test(thread, decoder, _):
        with thread.submit([request(100)]) as answer:
            reading = asyncio.create_task(text(answer.batches(far())))
            decoder.allowed.put("on")
            await settled(lambda: ("step", 1) in decoder.seen)
            await asyncio.sleep(0.02)
            thread.cut_off()
            assert await reading == ("x", "length")

    run(test)


def test_a_decoder_that_fails_is_told_to_all_and_takes_no_more():
    async def test(thread, decoder, failures):
        with thread.submit([request(100)]) as one, thread.submit([request(100)]) as other:
            readings = [asyncio.create_task(text(answer.batches(far()))) for answer in (one, other)]
            decoder.allowed.put("fail")
            for outcome in await asyncio.gather(*readings, return_exceptions=True):
                assert isinstance(outcome, Refusal)
                assert outcome.status == 500
        assert failures == [1]
        with pytest.raises(Refusal, match="the model failed"):
            thread.submit([request()])

    run(test)
