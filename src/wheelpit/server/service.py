"""What all routes share: the engine, the options, and which requests are in flight."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from wheelpit import __version__
from wheelpit.errors import NotFoundError, ValidationError
from wheelpit.server.live_requests import LiveRequests
from wheelpit.server.options import ServerOptions
from wheelpit.server.resumable import ResumableStreams
from wheelpit.server.served_engine import ModelView, ServedEngine
from wheelpit.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Service:
    """One engine behind one set of routes."""

    engine: ServedEngine
    options: ServerOptions
    created: int
    """Seconds since the epoch: when the server began to offer its models."""
    live: LiveRequests = field(default_factory=LiveRequests)
    streams: ResumableStreams = field(default_factory=ResumableStreams)

    @property
    def model(self) -> ModelView:
        return self.engine.model_config

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; ValidationError on a server that has none."""
        if self.model.tokenizer is None:
            raise ValidationError(
                "this server has no tokenizer: send token ids to /v1/completions", parameter=None
            )
        return self.model.tokenizer

    @property
    def model_names(self) -> tuple[str, ...]:
        return self.options.served_model_names or self.model.served_model_names

    @property
    def model_name(self) -> str:
        """The name that answers and metrics carry."""
        return self.model_names[0]

    def check_model(self, name: str | None) -> None:
        """Raise NotFoundError for a model that is not served; none given means the only one."""
        if name and name not in self.model_names:
            raise NotFoundError(f"The model `{name[:200]}` does not exist.")

    @property
    def fingerprint(self) -> str:
        """Changes when the same request may be answered differently."""
        ready = self.engine.ready
        parts = (__version__, self.model_name, ready.dtype, ready.device, self.model.max_model_len)
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()
        return f"wheelpit-{__version__}-{digest[:8]}"
