"""A request that is not answered, in the form of OpenAI's errors."""

from typing import Any

from starlette.responses import JSONResponse

from framework.inference.server.exchange import Exchange

_KINDS = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 503: "overloaded_error"}


class Refusal(Exception):  # noqa: N818  (it is an answer)
    """An HTTP status and why.

    parameter: of the request that is at fault. code: for programs, e.g. model_not_found.
    retry_after: seconds, where trying again later makes sense.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        parameter: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.parameter, self.code = status, message, parameter, code
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": self.code}}

    def response(self, exchange: Exchange) -> JSONResponse:
        """The answer; the exchange keeps why."""
        exchange.reason = " ".join(self.message.split())
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def require_model(given: str | None, served: str) -> None:
    """Raise Refusal for another model than the one that is served; a request need not name it."""
    if given is not None and given != served:
        message = f"there is no model {given!r} here; this server has {served!r}"
        raise Refusal(404, message, parameter="model", code="model_not_found")
