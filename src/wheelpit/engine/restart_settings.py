"""When an engine counts as hung, and how many ends in how long are too many."""

from __future__ import annotations

from dataclasses import dataclass

from wheelpit.config import require


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartSettings:
    """stall_timeout_s: without a finished step, with work to do. max_restarts: within window_s."""

    stall_timeout_s: float = 20.0
    max_restarts: int = 5
    window_s: float = 300.0

    def __post_init__(self) -> None:
        require(
            self.stall_timeout_s > 0.0, "engine_stall_timeout", self.stall_timeout_s, "positive"
        )
        require(self.max_restarts >= 0, "max_restarts", self.max_restarts, "at least 0")
        require(self.window_s > 0.0, "restart_window", self.window_s, "positive")
