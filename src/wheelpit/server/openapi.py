"""The API's description at /openapi.json, made from the same structs that decode the bodies."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from wheelpit.server.admin import LimitsAnswer, LimitsPatch
from wheelpit.server.admin_engine import EngineAnswer
from wheelpit.server.errors import HEALTHY, UNHEALTHY, Fault
from wheelpit.server.health import LiveAnswer, ProgressAnswer, ReadyAnswer
from wheelpit.server.protocol import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
)
from wheelpit.server.responses import (
    CancelAnswer,
    ChatAnswer,
    CompletionAnswer,
    DetokenizeAnswer,
    ErrorAnswer,
    TokenizeAnswer,
    json_response,
)

STRUCTS = (
    LimitsPatch,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    TokenizeRequest,
    LimitsAnswer,
    EngineAnswer,
    LiveAnswer,
    ReadyAnswer,
    ProgressAnswer,
    CancelAnswer,
    ChatAnswer,
    CompletionAnswer,
    DetokenizeAnswer,
    ErrorAnswer,
    TokenizeAnswer,
)

REF = "#/components/schemas/{name}"


def describe(
    body: type[msgspec.Struct], answer: type[msgspec.Struct], *faults: Fault
) -> dict[str, Any]:
    """What a route that reads its own body adds to its description."""
    content = {"required": True, "content": json_content(body)}
    return {"requestBody": content, **describe_answer(answer, *faults)}


def describe_answer(answer: type[msgspec.Struct], *faults: Fault) -> dict[str, Any]:
    """Likewise for a route without a body. faults: errors that are worth a client's care."""
    return describe_other({"description": "the answer", "content": json_content(answer)}, *faults)


def describe_other(answer: dict[str, Any], *faults: Fault) -> dict[str, Any]:
    """Likewise for an answer that is described already, as it need not be JSON."""
    responses = {str(HEALTHY): answer}
    for fault in faults:
        content = json_content(ErrorAnswer)
        responses[str(fault.status)] = {"description": fault.kind, "content": content}
    return {"responses": responses}


def describe_states(content: dict[str, Any] | None) -> dict[str, Any]:
    """Likewise for a probe, which answers alike for better and for worse, or says nothing."""
    body = {} if content is None else {"content": content}
    named = ((HEALTHY, "all is well"), (UNHEALTHY, "not so"))
    return {"responses": {str(status): {"description": text, **body} for status, text in named}}


class DocsRoutes:
    """Serves the description, and optionally a page to try it out."""

    def __init__(self, app: FastAPI, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def schema(self) -> Response:
        """This description."""
        described = get_openapi(
            title=self._app.title, version=self._app.version, routes=self._app.routes
        )
        if self._root_path:
            described["servers"] = [{"url": self._root_path}]
        _, components = msgspec.json.schema_components(STRUCTS, ref_template=REF)
        described.setdefault("components", {}).setdefault("schemas", {}).update(components)
        return json_response(described)

    async def page(self) -> Response:
        """A page to try the API out; the browser loads its scripts from a public CDN."""
        return get_swagger_ui_html(
            openapi_url=f"{self._root_path}/openapi.json", title=self._app.title
        )


def json_content(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The description of a JSON body of this shape."""
    return {"application/json": {"schema": {"$ref": REF.format(name=struct.__name__)}}}
