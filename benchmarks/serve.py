"""What serving costs: the server under concurrent clients beside its decoder called directly, in the same run.

    python -m benchmarks.serve --model runs/demo/model
    python -m benchmarks.serve --model runs/demo/model --tokens 128 --concurrency 1 8 64 --turns 3

Each client sends one request after another and reads its answer as a stream. Beside it the decoder gets the same
requests, so many at a time, in this process, without HTTP, JSON or threads. Both are greedy. Turns of the two
alternate; printed are the medians. The clients share the processor with the server, so on few cores the server looks
slower than to clients elsewhere.
"""

import argparse
import asyncio
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.machine import accelerator, machine

PROMPTS = ["It is a truth", "The river", "In the year 1851 the", "She opened the door and", "How do I", "The house of"]


def direct(model_path: str, prompts: Sequence[str], tokens: int, rows: int, positions: int) -> tuple[float, int]:
    """Seconds and tokens of the decoder with at most `rows` requests in it at a time."""
    from framework.inference.decoder import Decoder
    from framework.inference.generation import load, prompt_tokens
    from framework.inference.request import Request
    from framework.inference.sampling import GREEDY

    model, tokenizer = _once(load, model_path)
    decoder = Decoder(model, tokenizer, rows=rows, positions=positions)
    began, written = time.perf_counter(), 0
    for prompt in prompts:
        decoder.submit(Request(prompt_tokens(tokenizer, prompt), tokens, GREEDY))
    while decoder.busy:
        written += sum(len(piece.tokens) for _, piece in decoder.step())
    return time.perf_counter() - began, written


_made: dict = {}


def _once(make, given):  # type: ignore[no-untyped-def]
    if given not in _made:
        _made[given] = make(given)
    return _made[given]


async def served(url: str, prompts: Sequence[str], tokens: int, concurrency: int) -> tuple[float, int]:
    """Seconds and tokens of so many clients that take the prompts from one list."""
    import httpx

    left, written = list(reversed(prompts)), 0

    async def client(connection: httpx.AsyncClient) -> None:
        nonlocal written
        while left:
            body = {"prompt": left.pop(), "max_tokens": tokens, "temperature": 0, "stream": True}
            body |= {"stream_options": {"include_usage": True}}
            async with connection.stream("POST", "/v1/completions", json=body) as answer:
                lines = [line async for line in answer.aiter_lines() if line]
            assert lines[-1] == "data: [DONE]", lines[-1]
            written += json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"]

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as connection:
        await client_warm(connection, tokens)
        began = time.perf_counter()
        await asyncio.gather(*(client(connection) for _ in range(concurrency)))
        return time.perf_counter() - began, written


async def client_warm(connection, tokens: int) -> None:  # type: ignore[no-untyped-def]
    """One request that is not counted."""
    body = {"prompt": PROMPTS[0], "max_tokens": tokens, "temperature": 0}
    (await connection.post("/v1/completions", json=body)).raise_for_status()


def main() -> None:
    """Print a line for each concurrency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="runs/demo/model")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at most")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    positions = arguments.tokens + 32
    print(machine("torch", "fastapi", "uvicorn"), accelerator(), sep="\n")
    print(f"{arguments.model}, {arguments.tokens} tokens an answer, {arguments.requests} requests a client", flush=True)
    for concurrency in arguments.concurrency:
        prompts = [PROMPTS[n % len(PROMPTS)] for n in range(arguments.requests * concurrency)]
        command = [sys.executable, "-m", "framework.serve", f"model.path={arguments.model}", "port=0"]
        command += [f"rows={concurrency}", f"positions={positions}"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert server.stdout is not None
            found = re.search(r"at (http://\S+)/ and", server.stdout.readline())
            assert found, "the server did not start; start it by hand to see why"
            through, beside = [], []
            for _ in range(arguments.turns):
                through.append(asyncio.run(served(found[1], prompts, arguments.tokens, concurrency)))
                beside.append(direct(arguments.model, prompts, arguments.tokens, concurrency, positions))
        finally:
            server.terminate()
            server.wait()
        _tell(concurrency, len(prompts), through, beside)


def _tell(concurrency: int, requests: int, through: list[tuple[float, int]], beside: list[tuple[float, int]]) -> None:
    a_second = [statistics.median(tokens / seconds for seconds, tokens in runs) for runs in (through, beside)]
    answered = statistics.median(requests / seconds for seconds, _ in through)
    print(
        f"{concurrency:3d} at once: served {answered:7.1f} requests/s {a_second[0]:8.0f} tokens/s   "
        f"decoder alone {a_second[1]:8.0f} tokens/s   serving takes {a_second[1] / a_second[0]:.2f}x its time",
        flush=True,
    )


if __name__ == "__main__":
    main()
