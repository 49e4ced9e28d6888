"""More than there is room for, clients that hang up, and the end: every request is answered or refused."""

import asyncio
import json
import random
import signal
import socket
import threading
import time
from collections import Counter

import httpx
import pytest

from framework.inference.generation import generate_text, load
from tests.inference.server.running import running

LONG = {"prompt": "the river", "temperature": 0, "max_tokens": 4000, "stream": True}
COMPLETIONS = "/v1/completions"
JSON = {"Content-Type": "application/json"}


def until(condition, seconds=30.0):
    """Wait for a condition that a server shall meet soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(0.05)


def hang_up_after_headers(server, body):
    """A request whose client goes away as soon as the answer begins."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = (
        f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}"
    )
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(head.encode() + b"\r\n\r\n" + data)
    if body.get("stream"):
        assert b" 200 " in connection.recv(64)
    return connection


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_is_too_much_is_refused_and_who_hangs_up_makes_room(server, stream):
    hung_up = server.metric(r'loam_requests_total.*status="499"')
    body = LONG | {"stream": stream}
    # no answer begins before its row is free, so only those in the four rows can be waited for
    connections = [hang_up_after_headers(server, LONG) for _ in range(4)]
    connections += [hang_up_after_headers(server, body | {"stream": False}) for _ in range(8)]
    until(lambda: (server.metric("loam_running"), server.metric("loam_waiting")) == (4, 8))
    with server.client() as client:
        refused = client.post(COMPLETIONS, json=body)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert client.get("/healthz").status_code == 200
        for connection in connections:
            connection.close()
        until(lambda: server.metric("loam_running") + server.metric("loam_waiting") == 0, 5)
        assert server.metric(r'loam_requests_total.*status="499"') == hung_up + 12
        assert client.post(COMPLETIONS, json=LONG | {"max_tokens": 3, "stream": False}).status_code == 200


def test_who_does_not_read_holds_up_nobody(server):
    connection = hang_up_after_headers(server, LONG)
    with server.client() as client:
        for _ in range(3):
            assert client.post(COMPLETIONS, json=LONG | {"max_tokens": 5, "stream": False}).status_code == 200
    connection.close()
    until(lambda: server.metric("loam_running") == 0)


def storm(server, model, streams, seed, tokens):
    """Concurrent requests of every kind, each tried again while it is refused; what became of them."""
    chance = random.Random(seed)
    prompts = ["the river", "stone", "日本語 tree", "12 of the"]
    model, tokenizer = load(model)
    expected = {prompt: "".join(generate_text(model, tokenizer, prompt, maximum_tokens=tokens)) for prompt in prompts}
    outcomes = Counter()

    async def one(client, kind, prompt):
        body = {"prompt": prompt, "temperature": 0, "max_tokens": tokens, "stream": kind != "whole"}
        if kind == "malformed":
            answer = await client.post(
                COMPLETIONS, content=b'{"prompt": [', headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 400
            return "refused as malformed"
        while True:
            async with client.stream("POST", COMPLETIONS, json=body) as answer:
                if answer.status_code == 429:
                    outcomes["429"] += 1
                    await answer.aread()
                    await asyncio.sleep(chance.uniform(0.05, 0.3))
                    continue
                assert answer.status_code == 200, await answer.aread()
                if kind == "hangs up":
                    async for _ in answer.aiter_lines():
                        return "hung up"
                return "whole" if await text_of(answer, kind) == expected[prompt] else "wrong"

    async def text_of(answer, kind):
        if kind == "whole":
            return json.loads(await answer.aread())["choices"][0]["text"]
        lines = [line.removeprefix("data: ") async for line in answer.aiter_lines() if line]
        assert lines[-1] == "[DONE]"
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])

    async def all_of_them():
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
        kinds = chance.choices(["stream", "whole", "hangs up", "malformed"], [6, 2, 2, 1], k=streams)
        async with httpx.AsyncClient(base_url=server.url, timeout=300, limits=limits) as client:
            return await asyncio.gather(*(one(client, kind, chance.choice(prompts)) for kind in kinds))

    outcomes.update(asyncio.run(all_of_them()))
    return outcomes


def test_a_small_storm(server, language):
    outcomes = storm(server, language, streams=40, seed=0, tokens=16)
    assert outcomes["wrong"] == 0
    assert sum(count for what, count in outcomes.items() if what != "429") == 40
    assert outcomes["429"] > 0
    until(lambda: server.metric("loam_running") + server.metric("loam_waiting") == 0, 5)


@pytest.mark.slow
def test_hundreds_of_streams_in_bounded_memory(language):
    with running(language, "rows=16", "limits.queue=64") as server:
        storm(server, language, streams=300, seed=1, tokens=32)  # what is allocated once
        resident = server.resident()
        peak = [0]
        done = threading.Event()

        def watch():
            while not done.wait(0.05):
                peak[0] = max(peak[0], server.resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for seed in range(2, 8):
            outcomes = storm(server, language, streams=300, seed=seed, tokens=32)
            assert outcomes["wrong"] == 0
            assert sum(count for what, count in outcomes.items() if what != "429") == 300
        done.set()
        watcher.join()
        assert peak[0] < resident + 40, f"{resident} MiB after the first storm, {peak[0]} at most in six more"
        assert server.metric("loam_running") + server.metric("loam_waiting") == 0
        assert "Traceback" not in server.errors.read_text()
        assert server.end() == 0


def read_all(server, body, into):
    with server.client() as client, client.stream("POST", COMPLETIONS, json=body) as answer:
        into.append(answer.status_code)
        into.extend(line for line in answer.iter_lines() if line)


def test_sigterm_lets_what_runs_end_and_takes_no_more(language):
    with running(language, "rows=2") as server:
        read = []
        reader = threading.Thread(target=read_all, args=(server, LONG | {"max_tokens": 1500}, read))
        reader.start()
        until(lambda: len(read) > 5)
        server.process.send_signal(signal.SIGTERM)
        with server.client() as client:
            until(lambda: client.get("/healthz").status_code == 503)
            assert client.get("/healthz").json() == {"status": "draining"}
            refused = client.post(COMPLETIONS, json=LONG)
            assert refused.status_code == 503
            assert "shutting down" in refused.json()["error"]["message"]
        reader.join(120)
        assert read[-1] == "data: [DONE]"
        assert json.loads(read[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert server.process.wait(30) == 0
        assert "SIGTERM: 1 requests have 30 s to end" in server.errors.read_text()


@pytest.mark.slow
def test_after_the_grace_texts_end_where_they_are(language):
    with running(language, "rows=1", "limits.grace=0.5") as server:
        read, waited = [], []
        threads = [threading.Thread(target=read_all, args=(server, LONG, into)) for into in (read, waited)]
        threads[0].start()
        until(lambda: len(read) > 5)
        threads[1].start()
        until(lambda: server.metric("loam_waiting") == 1)
        assert server.end() == 0
        for thread in threads:
            thread.join(30)
        assert json.loads(read[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert read[-1] == "data: [DONE]"
        assert len(read) < 4000
        assert waited[0] == 503


@pytest.mark.slow
def test_a_second_signal_ends_at_once(language):
    with running(language) as server:
        connection = hang_up_after_headers(server, LONG)
        server.process.send_signal(signal.SIGINT)
        until(lambda: "SIGINT: 1 requests have" in server.errors.read_text())
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 1
        assert "ended at once, with 1 requests under way" in server.errors.read_text()
        connection.close()
