"""Put the routes and their middlewares together: `create_app(engine, options)`."""

from __future__ import annotations

import time

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from wheelpit import __version__
from wheelpit.server.admin import AdminRoutes, LimitsAnswer, LimitsPatch
from wheelpit.server.admin_engine import AdminEngineRoutes, EngineAnswer
from wheelpit.server.auth import Keyring, RequireApiKey
from wheelpit.server.cancel import CancelRoute
from wheelpit.server.chat import ChatRoute
from wheelpit.server.completions import CompletionRoute
from wheelpit.server.error_answers import FaultBoundary, answer_http_exception
from wheelpit.server.errors import BAD_REQUEST, LATE, OVERLOAD, UNAVAILABLE, UNKNOWN
from wheelpit.server.health import HealthRoutes, LiveAnswer, ProgressAnswer, ReadyAnswer
from wheelpit.server.http_metrics import CountRequests, HttpMetrics
from wheelpit.server.metrics import EngineMetrics, new_registry
from wheelpit.server.openapi import (
    DocsRoutes,
    describe,
    describe_answer,
    describe_other,
    describe_states,
    json_content,
)
from wheelpit.server.options import ServerOptions
from wheelpit.server.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from wheelpit.server.request_id import AssignRequestId
from wheelpit.server.responses import (
    CancelAnswer,
    ChatAnswer,
    CompletionAnswer,
    DetokenizeAnswer,
    TokenizeAnswer,
)
from wheelpit.server.resume import ResumeRoute
from wheelpit.server.root_path import SetRootPath
from wheelpit.server.served_engine import ServedEngine
from wheelpit.server.service import Service
from wheelpit.server.status import StatusRoutes
from wheelpit.server.tokenize import TokenizeRoutes


def create_app(engine: ServedEngine, options: ServerOptions | None = None) -> FastAPI:
    """Build the ASGI application over an engine that is ready. ConfigError for clashing keys.

    Registers a stat logger with the engine; neither starts nor stops it.
    """
    service = Service(engine, options or ServerOptions(), created=int(time.time()))
    http_metrics = HttpMetrics()
    keyring = Keyring(service.options.api_keys, engine.tenant_keys, service.options.admin_key)
    app = FastAPI(
        title="Wheelpit",
        version=__version__,
        # Own routes serve both: see openapi.py.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middlewares(service.options, keyring, http_metrics),
        exception_handlers={HTTPException: answer_http_exception},
    )
    app.state.service = service
    _add_generation_routes(app, service)
    _add_cancel_routes(app, service)
    if service.options.resume_window_s > 0:
        _add_stream_routes(app, service)
    if keyring.has_admin:
        _add_admin_routes(app, service)
    _add_health_routes(app, service, is_open=keyring.is_open)
    _add_status_routes(app, service, _registry(service, http_metrics))
    _add_docs_routes(app, service.options)
    return app


def service_of(app: FastAPI) -> Service:
    """The service behind an application that `create_app` built."""
    service = app.state.service
    assert isinstance(service, Service)
    return service


def _middlewares(
    options: ServerOptions, keyring: Keyring, http_metrics: HttpMetrics
) -> list[Middleware]:
    """Outermost first. All pure ASGI: nothing is wrapped per chunk but `send`."""
    middlewares = []
    if options.root_path:
        middlewares.append(Middleware(SetRootPath, root_path=options.root_path))
    middlewares += [
        Middleware(AssignRequestId, echo=options.enable_request_id_headers),
        Middleware(CountRequests, metrics=http_metrics),
    ]
    if options.allowed_origins:
        middlewares.append(
            Middleware(
                CORSMiddleware,
                allow_origins=options.allowed_origins,
                allow_methods=options.allowed_methods,
                allow_headers=options.allowed_headers,
                allow_credentials=options.allow_credentials,
                expose_headers=("X-Request-Id",),
            )
        )
    if len(keyring):
        middlewares.append(Middleware(RequireApiKey, keyring=keyring))
    middlewares.append(Middleware(FaultBoundary, overload_status=options.overload_status))
    return middlewares


def _registry(service: Service, http_metrics: HttpMetrics) -> CollectorRegistry:
    ready = service.engine.ready
    capacity = ready.num_blocks * ready.block_size
    engine_metrics = EngineMetrics(
        prefix=service.options.metrics_prefix,
        model_name=service.model_name,
        max_model_len=service.model.max_model_len,
        stats=service.engine.stats,
        cache_info={
            "block_size": str(ready.block_size),
            "num_gpu_blocks": str(ready.num_blocks),
            "kv_cache_size_tokens": str(capacity),
            "kv_cache_max_concurrency": f"{capacity / service.model.max_model_len:.2f}",
            "cache_dtype": ready.dtype,
        },
    )
    service.engine.add_stat_logger(engine_metrics)
    return new_registry(engine_metrics, http_metrics)


def _add_generation_routes(app: FastAPI, service: Service) -> None:
    tokenize = TokenizeRoutes(service)
    overload = OVERLOAD[service.options.overload_status]
    faults = (BAD_REQUEST, UNKNOWN, overload, UNAVAILABLE, LATE)
    for path, endpoint, description in (
        (
            "/v1/chat/completions",
            ChatRoute(service).create,
            describe(ChatRequest, ChatAnswer, *faults),
        ),
        (
            "/v1/completions",
            CompletionRoute(service).create,
            describe(CompletionRequest, CompletionAnswer, *faults),
        ),
        ("/tokenize", tokenize.tokenize, describe(TokenizeRequest, TokenizeAnswer)),
        ("/detokenize", tokenize.detokenize, describe(DetokenizeRequest, DetokenizeAnswer)),
    ):
        app.add_api_route(
            path, endpoint, methods=["POST"], response_model=None, openapi_extra=description
        )


def _add_cancel_routes(app: FastAPI, service: Service) -> None:
    route = CancelRoute(service)
    for path, method in (
        ("/v1/requests/{request_id:path}/cancel", "POST"),
        ("/v1/requests/{request_id:path}", "DELETE"),
    ):
        app.add_api_route(
            path,
            route.cancel,
            methods=[method],
            response_model=None,
            openapi_extra=describe_answer(CancelAnswer, UNKNOWN),
        )


def _add_stream_routes(app: FastAPI, service: Service) -> None:
    stream = {"description": "the events", "content": {"text/event-stream": {}}}
    app.add_api_route(
        "/v1/streams/{request_id:path}",
        ResumeRoute(service).resume,
        methods=["GET"],
        response_model=None,
        openapi_extra=describe_other(stream, BAD_REQUEST, UNKNOWN),
    )


def _add_admin_routes(app: FastAPI, service: Service) -> None:
    """Not there at all without an admin key: then there is nothing to find, guess or describe."""
    routes = AdminRoutes(service)
    for method, endpoint, description in (
        ("GET", routes.limits, describe_answer(LimitsAnswer)),
        ("PATCH", routes.update_limits, describe(LimitsPatch, LimitsAnswer, BAD_REQUEST)),
    ):
        app.add_api_route(
            "/admin/limits",
            endpoint,
            methods=[method],
            response_model=None,
            openapi_extra=description,
        )
    process = AdminEngineRoutes(service)
    for method, path, answer in (
        ("GET", "/admin/engine", process.engine),
        ("POST", "/admin/restart-engine", process.restart),
    ):
        app.add_api_route(
            path,
            answer,
            methods=[method],
            response_model=None,
            openapi_extra=describe_answer(EngineAnswer),
        )


def _add_health_routes(app: FastAPI, service: Service, *, is_open: bool) -> None:
    health = HealthRoutes(service.engine, is_open=is_open)
    ready = describe_states(json_content(ReadyAnswer))
    empty = describe_states(None)
    for path, endpoint, description in (
        ("/health", health.health, empty),
        ("/health/live", health.live, describe_answer(LiveAnswer)),
        ("/health/ready", health.ready, ready),
        ("/health/progress", health.progress, describe_answer(ProgressAnswer)),
        ("/ping", health.health, empty),
    ):
        app.add_api_route(
            path, endpoint, methods=["GET"], response_model=None, openapi_extra=description
        )
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    app.add_api_route("/ping", health.health, methods=["POST"], include_in_schema=False)


def _add_status_routes(app: FastAPI, service: Service, registry: CollectorRegistry) -> None:
    status = StatusRoutes(service, registry)
    for path, endpoint in (
        ("/v1/models", status.models),
        ("/v1/models/{name:path}", status.model),
        ("/version", status.version),
        ("/load", status.load),
        ("/metrics", status.metrics),
    ):
        app.add_api_route(path, endpoint, methods=["GET"])
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _add_docs_routes(app: FastAPI, options: ServerOptions) -> None:
    docs = DocsRoutes(app, options.root_path)
    if options.enable_openapi:
        app.add_api_route("/openapi.json", docs.schema, include_in_schema=False)
    if options.enable_docs and options.enable_openapi:
        app.add_api_route("/docs", docs.page, include_in_schema=False)
