"""Which request has waited longest for anything to happen to it: where a stuck one would show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wheelpit.engine.request_state import RequestState
from wheelpit.engine.reservation import Reservation

State = Literal["preparing", "waiting for the engine", "queued", "running"]


@dataclass(frozen=True, slots=True)
class Unprogressed:
    """A request, and how long nothing has happened to it.

    state: "preparing" until it is tokenized, "waiting for the engine" while there is none, or it
    is held back, "queued" in the engine, "running" once it has started there.
    age_s: since its arrival or its last token, whichever came later.
    """

    request_id: str
    state: State
    age_s: float


def oldest_unprogressed(
    pending: Iterable[Reservation], states: Iterable[RequestState], now: float
) -> Unprogressed | None:
    """Find it among those on their way in and those in the book; None if there are none."""
    oldest: Unprogressed | None = None
    for reservation in pending:
        age_s = now - reservation.arrival_s
        if oldest is None or age_s > oldest.age_s:
            oldest = Unprogressed(reservation.request_id, "preparing", age_s)
    for state in states:
        for completion in state.completions:
            if completion.finish_reason is not None:
                continue
            since_s = completion.last_token_s or state.reservation.arrival_s
            if oldest is None or now - since_s > oldest.age_s:
                kind: State = "running" if completion.was_scheduled else "queued"
                if state.sent_s is None:
                    kind = "waiting for the engine"
                oldest = Unprogressed(state.request_id, kind, now - since_s)
    return oldest
