"""The routes that tell what the server has: models, load, metrics. They enter no queue."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response

from wheelpit import __version__
from wheelpit.errors import NotFoundError
from wheelpit.server.metrics import exposition
from wheelpit.server.responses import json_response
from wheelpit.server.service import Service


class StatusRoutes:
    """Answers from what is known already; never waits for a step."""

    def __init__(self, service: Service, registry: CollectorRegistry) -> None:
        self._service = service
        self._registry = registry

    async def version(self) -> Response:
        """The server's version."""
        return json_response({"version": __version__})

    async def load(self) -> Response:
        """How many prompts are being served."""
        return json_response({"server_load": len(self._service.live)})

    async def metrics(self) -> Response:
        """Everything countable, in Prometheus' text format."""
        return Response(exposition(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def models(self) -> Response:
        """The names that a request's `model` may have."""
        cards = [self._card(name) for name in self._service.model_names]
        return json_response({"object": "list", "data": cards})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name: str = request.path_params["name"]
        if name not in self._service.model_names:
            raise NotFoundError(f"The model `{name[:200]}` does not exist.")
        return json_response(self._card(name))

    def _card(self, name: str) -> dict[str, object]:
        created = self._service.created
        permission = {
            "id": f"modelperm-{name}",
            "object": "model_permission",
            "created": created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "wheelpit",
            "root": self._service.model_name,
            "parent": None,
            "max_model_len": self._service.model.max_model_len,
            "permission": [permission],
        }
