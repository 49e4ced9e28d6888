"""Bodies that are none, clients that may not, servers that cannot start: each gets a line, and the server lives."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest

from framework.config import LimitsConfig, ModelSource, ServeConfig
from framework.errors import UserError
from framework.inference.server.serving import KEY, serve
from tests.inference.server.running import in_process

JSON = {"Content-Type": "application/json"}


def completion(**fields) -> bytes:
    return json.dumps({"prompt": "a", "max_tokens": 2} | fields).encode()


MALFORMED = {
    "nothing": (b"", "give a JSON object"),
    "broken": (b'{"prompt": "a', "is no JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}', "is no JSON: 'utf-8' codec can't decode"),
    "a list": (b"[]", "give a JSON object"),
    "a number": (b"1", "give a JSON object"),
    "deep": (b"[" * 30_000, "is nested too deeply"),
    "deep, closed": (b'{"prompt":' + b"[" * 20_000 + b"]" * 20_000 + b"}", "is nested too deeply|must be a text"),
    "no prompt": (b"{}", "prompt: Field required"),
    "null": (completion(prompt=None), "prompt: Field required"),
    "empty list": (completion(prompt=[]), "must be a text, a list of texts"),
    "mixed list": (completion(prompt=["a", 1]), "must be a text, a list of texts"),
    "booleans": (completion(prompt=[True]), "must be a text, a list of texts"),
    "foreign token": (completion(prompt=[1, 99_999]), "has token 99999"),
    "negative token": (completion(prompt=[-1]), "has token -1"),
    "huge token": (completion(prompt=[10**400]), "has token 1000"),
    "half a character": (b'{"prompt": "a\\ud800"}', "half a surrogate pair"),
    "temperature": (completion(temperature="hot"), "temperature: Input should be a valid number"),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', "temperature: Input should be a finite number"),
    "infinite": (b'{"prompt": "a", "top_p": 1e999}', "top_p: Input should be"),
    "n": (completion(n=129), "n: Input should be less than or equal to 128"),
    "too many texts": (completion(n=13), "asks for 13 texts at once; this server takes 12"),
    "no tokens": (completion(max_tokens=0), "max_tokens: Input should be greater"),
    "text for a number": (completion(max_tokens="5"), "max_tokens: Input should be a valid integer"),
    "too long": (completion(prompt="\n" * 5000), "prompt has 5001 tokens"),
    "empty stop": (completion(stop=""), "stop: must be"),
    "many stops": (completion(stop=["a"] * 17), "stop: Value should have at most 16"),
    "echo with logprobs": (completion(echo=True, logprobs=1), "leave out echo"),
    "half a surrogate to stop at": (b'{"prompt": "a", "stop": "\\udc00"}', "half a surrogate pair"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_told_what_is_wrong(server, name):
    body, said = MALFORMED[name]
    with server.client() as client:
        answer = client.post("/v1/completions", content=body, headers=JSON)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error"), answer.text[:300]
    assert any(part in error["message"] for part in said.split("|")), error["message"][:300]


CHATS = {
    "no messages": ([], "messages: List should have at least 1 item"),
    "a text": ("a", "messages: Input should be a valid list"),
    "no role": ([{"content": "a"}], "messages.0.role: Field required"),
    "strange role": ([{"role": "wizard", "content": "a"}], "no place for the role wizard"),
    "a picture": ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages.0.content"),
    "a call": ([{"role": "user", "content": "a", "tool_calls": [{}]}], "messages.0.tool_calls: is not supported"),
    "half a character": ([{"role": "user", "content": "\ud800"}], "half a surrogate pair"),
    "and in a part": ([{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}], "half a surrogate pair"),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_malformed_conversation_too(server, name):
    messages, said = CHATS[name]
    with server.client() as client:
        answer = client.post("/v1/chat/completions", content=json.dumps({"messages": messages}), headers=JSON)
    assert answer.status_code == 400, answer.text
    assert said in answer.json()["error"]["message"]


def test_other_paths_methods_and_content_types(server):
    with server.client() as client:
        assert client.get("/v1/completions").status_code == 405
        assert client.get("/docs").json()["error"]["message"] == "there is no GET /docs here"
        # what a page elsewhere may send without asking first is no JSON
        plain = client.post("/v1/completions", content=completion(), headers={"Content-Type": "text/plain"})
        assert plain.status_code == 400
        assert "access-control-allow-origin" not in client.options("/v1/models", headers={"Origin": "http://a"}).headers


def test_a_body_too_large_is_not_kept(server):
    def chunks():
        for _ in range(40):
            yield b" " * 4096

    with server.client() as client:
        assert client.post("/v1/completions", content=b" " * 70_000, headers=JSON).status_code == 413
        assert client.post("/v1/completions", content=chunks(), headers=JSON).status_code == 413
        assert client.post("/v1/completions", content=completion(), headers=JSON).status_code == 200


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTT"])
def test_what_is_no_http_is_no_trouble(server, data):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        assert b" 200 " not in raw.recv(4096)
    with server.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}


def ask(config, requests, **options):
    """The answers of the application to (method, path, headers) or to a body, one after another."""

    async def work():
        async with in_process(config, **options) as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(work())


def test_a_key_is_asked_for(encoder):
    config = ServeConfig(model=ModelSource(str(encoder)))
    ways = [
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer secre",
        "Bearer secrets",
        "Basic secret",
        "secret",
        "Bearer s\xe9",
    ]
    wrong = [("GET", "/v1/models", {"Authorization": one.encode("latin-1")}) for one in ways]
    for answer in ask(config, [*wrong, ("GET", "/metrics", {}), ("POST", "/v1/embeddings", {})], key="secret"):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["error"]["code"] == "invalid_api_key"
    right = [("GET", "/v1/models", {"Authorization": one}) for one in ("Bearer secret", "bearer  secret")]
    free = [("GET", "/healthz", {}), ("GET", "/", {})]
    assert [answer.status_code for answer in ask(config, right + free, key="secret")] == [200] * 4


def test_without_a_key_it_answers_to_local_names_alone(encoder):
    config = ServeConfig(model=ModelSource(str(encoder)))
    hosts = ["127.0.0.1:8000", "localhost", "[::1]:8000", "evil.example:8000", "localhost.evil.example", ""]
    answers = ask(config, [("GET", "/v1/models", {"Host": host}) for host in hosts], check_host=True)
    assert [answer.status_code for answer in answers] == [200, 200, 200, 403, 403, 403]


def post(config, bodies, path="/v1/completions"):
    """The answers to bodies that are sent at once."""

    async def work():
        async with in_process(config) as client:
            return await asyncio.gather(*(client.post(path, content=body, headers=JSON) for body in bodies))

    return asyncio.run(work())


def test_time_is_limited(language):
    limits = LimitsConfig(seconds=1.0)
    config = ServeConfig(model=ModelSource(str(language)), rows=1, limits=limits)
    long = completion(temperature=0, max_tokens=4000)
    first, second = post(config, [long, long])
    assert first.status_code == 200, first.text
    assert first.json()["choices"][0]["finish_reason"] == "length"
    assert 1 <= first.json()["usage"]["completion_tokens"] < 4000
    assert second.status_code == 503
    assert int(second.headers["Retry-After"]) >= 1


def test_limits_of_tokens(language):
    config = ServeConfig(model=ModelSource(str(language)), positions=16, limits=LimitsConfig(maximum_tokens=4))
    few, many = post(config, [completion(max_tokens=4), completion(max_tokens=5)])
    assert few.status_code == 200
    assert "at most 4 may follow" in many.json()["error"]["message"]
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], "temperature": 0}).encode()
    (chat,) = post(config, [body], "/v1/chat/completions")
    assert chat.json()["usage"]["completion_tokens"] == 4


def test_a_model_that_fails_is_told_to_all_who_wait(language, monkeypatch):
    from framework.inference.decoder import Decoder

    def fail(self):
        raise RuntimeError("no memory left")

    monkeypatch.setattr(Decoder, "step", fail)
    config = ServeConfig(model=ModelSource(str(language)), rows=1)
    for answer in post(config, [completion()] * 3):
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"


def config_of(path, **fields):
    return replace(ServeConfig(model=ModelSource(str(path)), port=0), **fields)


def test_others_need_a_key_to_be_let_in(monkeypatch, tmp_path):
    monkeypatch.delenv(KEY, raising=False)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example"):
        with pytest.raises(UserError, match=f"^host: {host} lets other machines in, and LOAM_API_KEY is not set"):
            serve(config_of(tmp_path, host=host))
    monkeypatch.setenv(KEY, " ")
    with pytest.raises(UserError, match="LOAM_API_KEY: is set but empty"):
        serve(config_of(tmp_path))


def test_a_port_that_is_taken_is_told_before_the_model_is_read(server, tmp_path):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(UserError, match=rf"^port: {port} of 127.0.0.1 cannot be had .*; try port={port + 1}"):
        serve(config_of(tmp_path / "none", port=port))
    with pytest.raises(UserError, match="is no directory; give a model directory"):
        serve(config_of(tmp_path / "none"))


def test_pages_are_there_for_those_who_look_at_heads(server):
    with server.client() as client:
        for path in ("/", "/healthz"):
            assert client.head(path).status_code == 200


def test_an_empty_list_of_stops_asks_for_nothing(server):
    with server.client() as client:
        assert client.post("/v1/completions", content=completion(stop=[]), headers=JSON).status_code == 200


def test_an_address_of_another_machine_is_no_taken_port(monkeypatch, tmp_path):
    """192.0.2.1 is of examples alone (RFC 5737)."""
    monkeypatch.setenv(KEY, "secret")
    with pytest.raises(UserError, match=r"^host: 192\.0\.2\.1 is no address of this machine"):
        serve(config_of(tmp_path / "none", host="192.0.2.1"))


def test_more_positions_than_the_model_has_are_refused(language):
    with pytest.raises(UserError, match=r"^positions: is 1000000, but .* has \d+; lower it"):
        serve(config_of(language, positions=1_000_000))


def test_a_refused_body_is_counted_at_its_endpoint(language):
    config = ServeConfig(model=ModelSource(str(language)), limits=LimitsConfig(body=10))

    async def work():
        async with in_process(config) as client:
            await client.post("/v1/completions", content=completion(), headers=JSON)
            await client.post("/v1/made/up", content=completion(), headers=JSON)
            return (await client.get("/metrics")).text

    told = asyncio.run(work())
    for endpoint in ("/v1/completions", "other"):
        assert f'loam_requests_total{{endpoint="{endpoint}",status="413"}} 1.0' in told


def test_a_cache_that_does_not_fit_is_told(language):
    with pytest.raises(UserError, match=r"^rows: no memory for keys and values of 100000000 rows of 4096 tokens"):
        serve(config_of(language, rows=100_000_000))


def test_a_missing_library_is_named(monkeypatch, language):
    import importlib.util

    from framework import serve as program

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UserError, match=r"^serve: needs uvicorn, not installed; pip install 'loam\[serve\]'"):
        program.main.__wrapped__(config_of(language))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"port": 70000}, "^port: is 70000"),
        ({"rows": 0}, "^rows: is 0"),
        ({"host": ""}, "^host: is empty"),
        ({"model": ModelSource("")}, r"^model\.path: is missing"),
        ({"limits": LimitsConfig(seconds=0)}, r"^limits\.seconds: is 0"),
        ({"limits": LimitsConfig(queue=-1)}, r"^limits\.queue: is -1"),
    ],
    ids=["port", "rows", "host", "model", "seconds", "queue"],
)
def test_the_configuration_is_checked(fields, message):
    with pytest.raises(UserError, match=message):
        config_of("m", **fields).check()
