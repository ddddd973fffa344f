"""What an operator can choose about the HTTP server: frozen, checked when built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wheelpit.config import require
from wheelpit.server.errors import OVERLOAD

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """The choices of `create_app`. Where to listen is `run.Listen`'s business."""

    api_keys: tuple[str, ...] = ()
    """Any of these opens every route; empty asks for no key. Only their hashes are kept."""
    admin_key: str | None = None
    """Opens every route and the admin routes, which do not exist without one."""
    overload_status: int = 429
    """What a refused request is answered with: 429 or 503."""
    keep_alive_s: float = 1.0
    """A stream that was silent for so long gets a comment; 0 sends none."""
    resume_window_s: float = 30.0
    """How long a stream that was asked for with X-Resumable outlives its connection; 0: no stream
    is resumable."""
    served_model_names: tuple[str, ...] = ()
    """The first is echoed, all are accepted; empty takes the engine's."""
    root_path: str = ""
    """The prefix that a proxy in front of the server strips, or leaves."""
    metrics_prefix: Literal["wheelpit", "vllm"] = "wheelpit"
    max_body_bytes: int = 32 * MIB
    """Longer bodies are refused unread with 413."""
    enable_request_id_headers: bool = True
    """Answer with X-Request-Id."""
    allowed_origins: tuple[str, ...] = ()
    """CORS; empty lets no other site's scripts in."""
    allowed_methods: tuple[str, ...] = ("*",)
    allowed_headers: tuple[str, ...] = ("*",)
    allow_credentials: bool = False
    response_role: str = "assistant"
    """The role of chat answers."""
    return_tokens_as_token_ids: bool = False
    """Show tokens in logprobs as "token_id:123" unless a request says otherwise."""
    force_include_usage: bool = False
    """Put usage on every streamed chunk, as if each request had asked for it."""
    enable_openapi: bool = True
    """Serve /openapi.json."""
    enable_docs: bool = False
    """Serve /docs, a page that the browser completes from a public CDN."""

    def __post_init__(self) -> None:
        require(all(self.api_keys), "api_keys", "an empty key", "non-empty strings")
        require(self.admin_key != "", "admin_key", "empty", "a non-empty string, or None")
        require(
            self.overload_status in OVERLOAD,
            "overload_status",
            self.overload_status,
            " or ".join(map(str, OVERLOAD)),
        )
        require(
            0.0 <= self.keep_alive_s < float("inf"),
            "keep_alive_s",
            self.keep_alive_s,
            "at least 0, and finite",
        )
        require(
            0.0 <= self.resume_window_s <= 3600.0,
            "resume_window_s",
            self.resume_window_s,
            "in [0, 3600]",
        )
        require(self.max_body_bytes >= 1, "max_body_bytes", self.max_body_bytes, "at least 1")
        require(
            not self.root_path or self.root_path.startswith("/"),
            "root_path",
            self.root_path,
            'empty or begin with "/"',
        )
        require(
            self.metrics_prefix in ("wheelpit", "vllm"),
            "metrics_prefix",
            self.metrics_prefix,
            "wheelpit or vllm",
        )
        require(bool(self.response_role), "response_role", self.response_role, "non-empty")
        require(
            not (self.allow_credentials and "*" in self.allowed_origins),
            "allowed_origins",
            self.allowed_origins,
            "a list of origins without * when allow_credentials is set",
        )
