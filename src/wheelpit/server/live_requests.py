"""Which HTTP requests are being generated, whose they are, and how to end one from outside.

A request is live from its admission until its answer is sent. It is found by its id, as clients
see it in answers ("chatcmpl-x", "cmpl-x") or as they chose it ("x"). Ids need not be unique: who
uses one twice at once, and cancels it, ends both; but nobody ends what somebody else has sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from wheelpit.engine.reservation import Reservation
from wheelpit.request import PromptType, SamplingParams
from wheelpit.server.auth import Principal
from wheelpit.server.errors import ClientGoneError, UnknownRequestError
from wheelpit.server.served_engine import ServedEngine, SubmittedRequest


class LiveRequest:
    """The prompts of one HTTP request, each with its place in the engine until it ends.

    Written only by the request's own tasks and by `cancel`, on the event loop's thread.
    """

    def __init__(
        self,
        engine: ServedEngine,
        request_id: str,
        owner: Principal,
        reservations: Sequence[Reservation],
    ) -> None:
        """request_id: with its prefix. reservations: one for each prompt, to be taken over."""
        self.request_id = request_id
        self.owner = owner
        self.reservations = reservations
        self.is_cancelled = False
        self._engine = engine
        self._submitted: dict[int, SubmittedRequest] = {}

    @property
    def chosen_id(self) -> str:
        """The id without its prefix: what the client chose, or could have."""
        return self.request_id.partition("-")[2]

    @property
    def engine_ids(self) -> list[str]:
        """The engine's and the log's ids, one for each prompt."""
        return [reservation.request_id for reservation in self.reservations]

    async def submit(
        self, index: int, prompt: PromptType, params: SamplingParams
    ) -> SubmittedRequest:
        """Start to generate for one prompt; `cancel` and `end` see to it from then on."""
        reservation = self.reservations[index]
        submitted = await self._engine.add_request(
            reservation.request_id, prompt, params, reservation=reservation
        )
        self._submitted[index] = submitted
        if self.is_cancelled:
            submitted.close()
        return submitted

    def cancel(self) -> None:
        """End it for whoever waits for it: the answer is what there is, with "abort"."""
        self.is_cancelled = True
        self.end()

    def end(self, error: BaseException | None = None) -> None:
        """Free every seat and every place in the queue that it still has. Idempotent.

        error: why, for those of its prompts that never reached the engine.
        """
        for index, reservation in enumerate(self.reservations):
            submitted = self._submitted.get(index)
            if submitted is None:
                self._engine.release(reservation, error)
            else:
                submitted.close()


class LiveRequests:
    """All of one server's. Written only by `hold`."""

    def __init__(self) -> None:
        self._requests: dict[LiveRequest, None] = {}
        self._by_id: dict[str, dict[LiveRequest, None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        """The number of prompts."""
        return sum(len(live.reservations) for live in self._requests)

    @property
    def engine_ids(self) -> list[str]:
        return [name for live in self._requests for name in live.engine_ids]

    @contextmanager
    def hold(self, live: LiveRequest) -> Iterator[None]:
        """List a request while the body runs; afterwards it has nothing left in the engine."""
        names = (live.request_id, live.chosen_id)
        self._requests[live] = None
        for name in names:
            self._by_id.setdefault(name, {})[live] = None
        self._idle.clear()
        try:
            yield
        except Exception as error:
            # Who left, or was cancelled, is no error.
            live.end(None if isinstance(error, ClientGoneError) else error)
            raise
        finally:
            live.end()
            del self._requests[live]
            for name in names:
                del self._by_id[name][live]
                if not self._by_id[name]:
                    del self._by_id[name]
            if not self._requests:
                self._idle.set()

    def cancel(self, name: str, by: Principal) -> list[LiveRequest]:
        """End the requests of this id; UnknownRequestError if `by` has none."""
        found = [live for live in self._by_id.get(name, ()) if by.may_cancel(live.owner)]
        # An id with its prefix comes first: a client may have chosen "cmpl-x" itself.
        found = [live for live in found if live.request_id == name] or found
        if not found:
            raise UnknownRequestError(
                f"no request {name[:100]!r} is in flight: it may have ended, or be another's"
            )
        for live in found:
            live.cancel()
        return found

    def cancel_all(self) -> None:
        """End every request."""
        for live in list(self._requests):
            live.cancel()

    async def wait_until_idle(self) -> None:
        """Return when nothing is being generated."""
        await self._idle.wait()
