"""What happens to a request before it is in the book: admission, checks, tokenizing.

    arrival ── check what is cheap ── reserve ── tokenize ── check ──> RequestState
                     │                   │           └───────┴ the place is given back
                     └── "refused" ──────┘

A request that does not get through is reported here, once; one that does is the book's to report.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wheelpit.engine.admission import Admission, Limits, Reservation, estimate_tokens
from wheelpit.engine.arrival import Arrival, PriorityWarning, Submission
from wheelpit.engine.engine_link import EngineLink
from wheelpit.engine.input_processor import InputProcessor, ParsedPrompt, parse_prompt
from wheelpit.engine.launch import Launched
from wheelpit.engine.messages import SetTenants
from wheelpit.engine.request_state import RequestState
from wheelpit.engine.stats import FinishedRequest
from wheelpit.errors import ClientError, OverloadedError, ValidationError

log = logging.getLogger(__name__)


class Intake:
    """The way into one engine. Written only by the event loop's thread."""

    def __init__(
        self,
        launched: Launched,
        admission: Admission,
        link: EngineLink,
        report: Callable[[FinishedRequest], None],
        clock: Callable[[], float],
    ) -> None:
        """report: hears of each request that does not get through."""
        self._model = launched.model
        self._config = launched.config
        self._with_metrics = launched.log_stats
        self._inputs = InputProcessor(self._model, self._config.model.seed, capacity_tokens=2**63)
        self._admission = admission
        self._link = link
        self._report = report
        self._clock = clock
        self._pending: dict[Reservation, None] = {}
        self._closed_for_s: float | None = None
        self._warn_of_priority = PriorityWarning(self._config.scheduler.policy)

    def on_ready(self, capacity_tokens: int) -> None:
        """The engine process runs; capacity_tokens: what its KV cache holds."""
        self._inputs = InputProcessor(self._model, self._config.model.seed, capacity_tokens)
        self._send_tenants()

    @property
    def num_pending(self) -> int:
        """Reservations whose requests are not in the book yet."""
        return len(self._pending)

    @property
    def pending(self) -> list[Reservation]:
        """Those reservations, oldest first; a copy."""
        return list(self._pending)

    @property
    def is_open(self) -> bool:
        """Does it admit requests at all?"""
        return self._closed_for_s is None

    @property
    def is_full(self) -> bool:
        return self._admission.is_full

    def close(self, retry_after_s: float) -> None:
        """Refuse whatever comes from now on; what is in, or has a reservation, goes on."""
        self._closed_for_s = retry_after_s

    @property
    def limits(self) -> Limits:
        return self._admission.limits

    def update_limits(self, limits: Limits) -> None:
        """Make other limits hold from now on, in both processes."""
        changes = self._admission.limits.changes_to(limits)
        self._admission.set_limits(limits, self._clock())
        for name, old, new in changes:
            log.info("limit %s: %s -> %s", name, old, new)
        if changes:
            self._send_tenants()

    def reserve(
        self, arrival: Arrival, places: Sequence[tuple[str, int]], num_sequences: int
    ) -> list[Reservation]:
        """Admit a request or raise OverloadedError or ValidationError, reported.

        places: (request id, tokens) of each of its prompts, which go on as requests of their own.
        """
        now = self._clock()
        arrival_s = now
        try:
            arrival.check()
            if self._closed_for_s is not None:
                raise OverloadedError(
                    "the server is shutting down: send this to another one",
                    retry_after_s=self._closed_for_s,
                    reason="draining",
                )
            self._warn_of_priority(arrival.priority)
            if arrival.arrival_time is not None:
                arrival_s -= max(0.0, time.time() - arrival.arrival_time)
            reservations = self._admission.reserve_all(
                places,
                now,
                num_sequences=num_sequences,
                tenant=arrival.tenant,
                priority=arrival.priority,
                deadlines=arrival.timeouts.deadlines(arrival_s, self.limits),
                arrival_s=arrival_s,
            )
        except Exception as error:
            self._report_unserved(arrival.request_id, arrival.tenant, error, now - arrival_s)
            raise
        self._pending.update(dict.fromkeys(reservations))
        return reservations

    def release(self, reservation: Reservation, error: BaseException | None) -> None:
        """Give back the place of a request that goes no further, and report why."""
        if reservation in self._pending:
            del self._pending[reservation]
            now = self._clock()
            reservation.release(now)
            self._report_unserved(
                reservation.request_id, reservation.tenant, error, now - reservation.arrival_s
            )

    def abort_pending(self, request_ids: set[str]) -> None:
        """Mark those on their way in, so that they end as soon as they are in the book."""
        for reservation in self._pending:
            if reservation.request_id in request_ids:
                reservation.is_aborted = True

    async def prepare(
        self, submission: Submission, reservation: Reservation | None = None
    ) -> RequestState:
        """Check, admit and tokenize a request; it must go into the book before the next await.

        reservation: its place, if it has one; whatever is raised, that is given back.
        """
        arrival, inputs = submission.arrival, self._inputs
        if reservation is not None:
            _take_over(reservation)
        try:
            submission.check()
            params = inputs.check_params(submission.params)
            parsed = parse_prompt(submission.prompt)
            if parsed.token_ids is None:
                inputs.check_text(parsed.text or "")
            if reservation is not None:
                _check_said_once(reservation, arrival, params.n)
        except Exception as error:
            # Whatever a caller may hand over is tried here: a TypeError is not ours.
            known = ValidationError(str(error)) if isinstance(error, TypeError) else error
            if reservation is not None:
                self.release(reservation, known)
            else:
                self._report_unserved(arrival.request_id, arrival.tenant, known, 0.0)
            raise
        if reservation is None:
            place = (arrival.request_id, _num_tokens(parsed))
            (reservation,) = self.reserve(arrival, [place], params.n)
            reservation.is_taken = True
        try:
            token_ids = parsed.token_ids
            if token_ids is None:
                token_ids = await self._tokenize(parsed.text or "", submission.tokenization_kwargs)
            inputs.check_token_ids(token_ids)
            # Tokenizing may have taken a while on another thread.
            self._link.check()
            reservation.resize(len(token_ids), self._clock())
            internal_id = f"{arrival.request_id}-{secrets.token_hex(4)}"
            messages = inputs.build(internal_id, token_ids, params, reservation, parsed.cache_salt)
            text = parsed.text if parsed.text is not None else submission.prompt_text
            state = RequestState(
                reservation,
                text,
                messages,
                params,
                self._model.tokenizer,
                with_metrics=self._with_metrics,
            )
        except BaseException as error:
            self.release(reservation, error)
            raise
        del self._pending[reservation]
        return state

    async def _tokenize(self, text: str, options: Mapping[str, Any]) -> list[int]:
        assert self._model.tokenizer is not None  # check_text has refused the text otherwise
        return await self._model.tokenizer.encode_async(
            text, add_special_tokens=options.get("add_special_tokens", True)
        )

    def _send_tenants(self) -> None:
        """Tell the engine process the weights and seats of tenants."""
        limits = self._admission.limits
        shares = {name: tenant.share for name, tenant in limits.tenants.items()}
        self._link.set_tenants(SetTenants(shares, limits.default_tenant.share))

    def _report_unserved(
        self, request_id: str, tenant: str, error: BaseException | None, e2e_s: float
    ) -> None:
        finish_reason, stop_reason = "error", None
        if isinstance(error, OverloadedError):
            finish_reason, stop_reason = "refused", error.reason
        elif isinstance(error, (ClientError, ValueError)):
            finish_reason, stop_reason = "refused", "invalid"
        elif error is None or not isinstance(error, Exception):
            # Its client left: the task was cancelled, the generator closed.
            finish_reason = "abort"
        self._report(
            FinishedRequest.unserved(request_id, tenant, finish_reason, stop_reason, e2e_s)
        )


def _take_over(reservation: Reservation) -> None:
    if reservation.is_taken or reservation.is_released:
        raise ValueError(f"the reservation of request {reservation.request_id!r} was used before")
    reservation.is_taken = True


def _check_said_once(reservation: Reservation, arrival: Arrival, n: int) -> None:
    if arrival != Arrival(reservation.request_id):
        raise ValueError(
            f"the id, tenant, priority, arrival and timeouts of request "
            f"{reservation.request_id!r} were said when it was reserved: leave them out here"
        )
    if n != reservation.num_sequences:
        raise ValueError(f"n is {n}, the reservation is for n={reservation.num_sequences}")


def _num_tokens(parsed: ParsedPrompt) -> int:
    if parsed.token_ids is not None:
        return len(parsed.token_ids)
    return estimate_tokens(len(parsed.text or ""))
