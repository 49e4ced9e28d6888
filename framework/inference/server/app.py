"""The application: the routes of the model that is served, and how what goes wrong is told."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from framework.errors import UserError
from framework.inference.server.exchange import POSTS
from framework.inference.server.metrics import Metrics
from framework.inference.server.page import page
from framework.inference.server.refusal import Refusal, require_model
from framework.inference.server.served import Served


def create_app(served: Served, metrics: Metrics, health: Callable[[], str]) -> FastAPI:
    """`health`: ok, or why no more requests are taken."""
    app = FastAPI(openapi_url=None)  # no pages of FastAPI's, whose scripts would come from elsewhere
    html = page()

    @app.head("/")
    @app.get("/")
    async def index() -> Response:
        return html

    @app.head("/healthz")
    @app.get("/healthz")
    async def healthz() -> Response:
        status = health()
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [served.card]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        require_model(name, served.card["id"])
        return JSONResponse(served.card)

    for router in served.routers:
        app.include_router(router)
    offered = {route.path for router in served.routers for route in router.routes if hasattr(route, "path")}
    for path in set(POSTS) - offered:
        app.add_api_route(path, _not_offered(served, path, sorted(offered)), methods=["POST"])
    _tell_errors(app)
    return app


def _not_offered(served: Served, path: str, offered: list[str]) -> Callable[[], Any]:
    reason = served.lacking.get(path, f"{served.card['id']} is {served.kind}; it answers {' and '.join(offered)}")

    async def refuse() -> Response:
        raise Refusal(404, reason, code="unsupported_endpoint")

    return refuse


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(http: HttpRequest, refusal: Refusal) -> Response:
        return refusal.response(http.scope["loam"])

    @app.exception_handler(UserError)
    async def wrong(http: HttpRequest, error: UserError) -> Response:
        return Refusal(400, " ".join(str(error).split())).response(http.scope["loam"])

    @app.exception_handler(RequestValidationError)
    async def invalid(http: HttpRequest, error: RequestValidationError) -> Response:
        return _first_problem(error).response(http.scope["loam"])

    @app.exception_handler(HTTPException)
    async def plain(http: HttpRequest, error: HTTPException) -> Response:
        said = str(error.detail)
        if error.status_code in (404, 405):
            said = f"there is no {http.method} {http.url.path} here"
        elif error.__cause__ is not None:  # FastAPI says that it could not be parsed, and not why
            deep = isinstance(error.__cause__, RecursionError)
            said = "the body is nested too deeply" if deep else f"the body is no JSON: {error.__cause__}"
        return Refusal(error.status_code, said).response(http.scope["loam"])

    @app.exception_handler(Exception)
    async def bug(http: HttpRequest, error: Exception) -> Response:
        return Refusal(500, f"the server failed ({type(error).__name__}); its log says more").response(
            http.scope["loam"]
        )


def _first_problem(error: RequestValidationError) -> Refusal:
    """Which field is wrong, and how; a program can do no more with several."""
    problem = error.errors()[0]
    where = [str(part) for part in problem["loc"][1:]]
    field = ".".join(where)
    if problem["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON: {problem['ctx']['error']} at character {problem['loc'][1]}")
    if not where and problem["type"] in ("missing", "model_attributes_type", "model_type", "dict_type"):
        return Refusal(400, "give a JSON object as the body, with Content-Type: application/json")
    if problem["type"] == "extra_forbidden":
        return Refusal(400, f"{field}: is not supported by this server", parameter=field, code="unsupported_parameter")
    said = problem["msg"].removeprefix("Value error, ")
    parameter = field or said.partition(":")[0]
    return Refusal(400, f"{field}: {said}" if field else said, parameter=parameter)
