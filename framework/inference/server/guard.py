"""What stands before every request: key, host, size, time, and a look at whether the client is still there.

One place for all endpoints. An endpoint is a task that is cancelled when its client hangs up or its time is over;
what it has to give back then, it leaves with its exchange (`Exchange.at_end`).
"""

import asyncio
import hashlib
import hmac
import logging
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from framework.config import LimitsConfig
from framework.inference.server.exchange import HUNG_UP, POSTS, Exchange
from framework.inference.server.metrics import Metrics
from framework.inference.server.refusal import Refusal

logger = logging.getLogger("loam")

OPEN = {"/", "/healthz"}  # need no key
READING_GRACE = 10.0  # seconds that a client has to read the end of an answer that came in time
_LOCAL = {"localhost", "127.0.0.1", "[::1]"}


class Guard:
    """The outermost layer of the application. `key`: None where none is asked for; `draining`: takes no more."""

    def __init__(self, app: ASGIApp, limits: LimitsConfig, metrics: Metrics, key: str | None, check_host: bool) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._key = None if key is None else _digest(key.encode())
        self._check_host = check_host
        self.draining = False
        self.requests = 0  # to the model, under way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        now = asyncio.get_running_loop().time()
        exchange = scope["loam"] = Exchange(now, now + self._limits.seconds)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif not message.get("more_body"):
                exchange.answered = True
            await send(message)

        works = scope["path"].startswith("/v1/") and scope["method"] == "POST"
        self.requests += works
        try:
            self._check(scope)
            body = await self._body(scope, receive, exchange)
            if body is not None:
                await self._answer(scope, body, receive, noting, exchange)
        except Refusal as refusal:
            await refusal.response(exchange)(scope, receive, noting)
        finally:
            exchange.at_end.close()
            self.requests -= works
            self._record(scope, exchange)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._check_host and _host(headers.get(b"host", b"")) not in _LOCAL:
            # A page from elsewhere whose name was made to lead here (DNS rebinding) calls the server by that name.
            raise Refusal(403, "without a key in LOAM_API_KEY this server answers to localhost and 127.0.0.1 alone")
        if scope["path"] in OPEN:
            return
        if self._key is not None and not _allowed(headers.get(b"authorization", b""), self._key):
            raise Refusal(401, "give the server's key as Authorization: Bearer KEY", code="invalid_api_key")
        if self.draining and scope["path"].startswith("/v1/"):
            raise Refusal(503, "the server is shutting down", retry_after=5)

    async def _body(self, scope: Scope, receive: Receive, exchange: Exchange) -> bytes | None:
        """All of the body; None where the client hung up before its end."""
        limit = self._limits.body
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        body = bytearray()  # and no list, in which the parts of a client that sends byte by byte take many times more
        too_large = declared.isdigit() and int(declared) > limit
        try:
            async with asyncio.timeout_at(exchange.deadline):
                while not too_large:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    too_large = len(body) > limit
                    if not message.get("more_body") and not too_large:
                        return bytes(body)
        except TimeoutError as error:
            raise Refusal(408, f"the body did not come within {self._limits.seconds:g} s") from error
        raise Refusal(
            413, f"the body has more than {limit} bytes, as many as limits.body allows", code="body_too_large"
        )

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send, exchange: Exchange) -> None:
        """Run the application until it has answered, its client is gone, or its time is."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        never = asyncio.Event()

        async def replay() -> Message:
            if not unread:
                await never.wait()
            return unread.pop()

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self._app(scope, replay, send))
        watch = asyncio.ensure_future(gone())
        left = exchange.deadline + READING_GRACE - asyncio.get_running_loop().time()
        try:
            await asyncio.wait({work, watch}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if exchange.answered:  # uvicorn says then, too, that the client is gone
                await asyncio.wait({work}, timeout=READING_GRACE)
        finally:
            if not exchange.answered:
                exchange.status = HUNG_UP
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.error("%s %s failed", scope["method"], scope["path"], exc_info=error)  # it was answered with 500

    def _record(self, scope: Scope, exchange: Exchange) -> None:
        route: Any = scope.get("route")  # of a request that came so far
        path = scope["path"] if scope["path"] in POSTS else "other"  # of which clients may make up any number
        endpoint = getattr(route, "path", path)
        seconds = asyncio.get_running_loop().time() - exchange.began
        self._metrics.requests.labels(endpoint, exchange.status).inc()
        self._metrics.seconds.labels(endpoint).observe(seconds)
        if exchange.first_token is not None:
            self._metrics.first_token.observe(exchange.first_token - exchange.began)
        self._metrics.tokens.labels("prompt").inc(exchange.prompt_tokens)
        self._metrics.tokens.labels("completion").inc(exchange.tokens)
        if scope["path"].startswith("/v1/"):
            client = scope["client"][0] if scope.get("client") else "-"
            logger.info(
                "%s %s %s %d %.3f s, %d tokens read, %d written%s",
                client,
                scope["method"],
                scope["path"],
                exchange.status,
                seconds,
                exchange.prompt_tokens,
                exchange.tokens,
                f": {exchange.reason}"[:200] if exchange.reason else "",
            )


def _host(header: bytes) -> str:
    """Without the port."""
    name, colon, port = header.decode("latin-1").lower().rpartition(":")
    return name if colon and port.isdigit() else header.decode("latin-1").lower()


def _allowed(header: bytes, key: bytes) -> bool:
    scheme, _, given = header.partition(b" ")
    # of digests, so that not even the length of the key can be learnt from how long this takes
    return hmac.compare_digest(_digest(given.strip()), key) and scheme.lower() == b"bearer"


def _digest(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
