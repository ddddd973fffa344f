"""A request in the front end: what the engine said so far, and what its consumer has not read.

There is no queue between engine and consumer. Each step's tokens are added to the state, and
`take()` builds one output of everything that is new since the last one; a slow consumer finds
several steps merged into one output, and memory stays bounded by the request's own tokens.
Written only by the owner of the engine (the event loop's thread, or `LLM`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from wheelpit.engine.admission import Reservation
from wheelpit.engine.messages import AddRequest, TokenOutput
from wheelpit.engine.stats import FinishedRequest
from wheelpit.request import (
    CompletionOutput,
    Logprob,
    PositionLogprobs,
    PromptLogprobs,
    RequestMetrics,
    RequestOutput,
    RequestOutputKind,
    SampleLogprobs,
    SamplingParams,
)
from wheelpit.scheduling.logprobs import TokenLogprobs
from wheelpit.text.output_text import OutputText
from wheelpit.text.tokenizer import Tokenizer


class Timer(Protocol):
    """Something that will be called, unless it is cancelled: asyncio.TimerHandle, or a fake."""

    def cancel(self) -> None: ...


class CompletionState:
    """One of a request's n sequences: its tokens and its text."""

    def __init__(
        self, index: int, message: AddRequest, params: SamplingParams, tokenizer: Tokenizer | None
    ) -> None:
        self.index = index
        self.sequence_id = message.request_id
        self.token_ids: list[int] = []
        self.logprobs: SampleLogprobs | None = None if params.logprobs is None else []
        self.cumulative_logprob: float | None = None if params.logprobs is None else 0.0
        self.finish_reason: str | None = None
        self.stop_reason: int | str | None = None
        self.error: str | None = None
        self.last_token_s: float | None = None
        self.was_scheduled = False
        self.is_running = False
        """Scheduled by the engine process that has it now."""
        self.num_strikes = 0
        """Crashes in a row at which it was running, without a token in between."""
        self._output_text = OutputText(tokenizer, params, message.prompt_token_ids)
        self._tokenizer = tokenizer if params.detokenize else None
        self._text = ""
        self._unread_text: list[str] = []
        self._num_read_tokens = 0
        self._has_read_end = False

    @property
    def is_suspect(self) -> bool:
        """May it be why engines crash? Nothing but a token clears it then."""
        return self.num_strikes >= 2

    def recall(self, *, has_failed: bool) -> bool:
        """The engine is gone, and perhaps has failed. True if it was running there."""
        was_running = self.is_running and self.finish_reason is None
        if has_failed and was_running:
            self.num_strikes += 1
        elif has_failed and not self.is_suspect:
            self.num_strikes = 0
        self.is_running = False
        return was_running

    @property
    def has_news(self) -> bool:
        return len(self.token_ids) > self._num_read_tokens or (
            self.finish_reason is not None and not self._has_read_end
        )

    def apply(self, output: TokenOutput) -> bool:
        """Add one step's tokens. True if a stop string ended it and the engine must be told."""
        if output.token_ids:
            self.token_ids += output.token_ids
            self.num_strikes = 0
        if output.logprobs is not None and self.logprobs is not None:
            self._add_logprobs(output.logprobs)
        text, matched = self._output_text.append(
            output.token_ids,
            output.finish_reason is not None,
            ends_with_stop_token=output.finish_reason == "stop",
        )
        if text:
            self._unread_text.append(text)
        if matched is not None:
            self.finish_reason, self.stop_reason = "stop", matched
            return output.finish_reason is None
        self.finish_reason, self.stop_reason = output.finish_reason, output.stop_reason
        self.error = output.error
        return False

    def finish(self, reason: str, stop_reason: str | None = None) -> None:
        """End it from the front end's side ("abort", "error"), keeping what there is."""
        if self.finish_reason is None:
            text, _ = self._output_text.append((), is_final=True)
            if text:
                self._unread_text.append(text)
            self.finish_reason, self.stop_reason = reason, stop_reason

    def take(self, *, is_delta: bool) -> CompletionOutput:
        """Everything (or, for delta, everything unread) as an output; marks it read."""
        new_text = "".join(self._unread_text)
        self._unread_text.clear()
        first = self._num_read_tokens
        self._num_read_tokens = len(self.token_ids)
        self._has_read_end = self.finish_reason is not None
        logprobs = self.logprobs
        if is_delta:
            text, token_ids = new_text, self.token_ids[first:]
            if logprobs is not None:
                logprobs = logprobs[first:]
        else:
            self._text += new_text
            # A copy: the live list goes on growing after the consumer got this output.
            text, token_ids = self._text, self.token_ids.copy()
            if logprobs is not None:
                logprobs = logprobs.copy()
        return CompletionOutput(
            self.index,
            text,
            token_ids,
            self.cumulative_logprob,
            logprobs,
            self.finish_reason,
            self.stop_reason,
            error=self.error,
        )

    def _add_logprobs(self, logprobs: list[TokenLogprobs]) -> None:
        assert self.logprobs is not None
        assert self.cumulative_logprob is not None
        for position in logprobs:
            self.logprobs.append(describe_logprobs(position, self._tokenizer))
            self.cumulative_logprob += position.logprobs[0]


class RequestState:
    """All completions of one request and the moments of its life."""

    def __init__(
        self,
        reservation: Reservation,
        prompt: str | None,
        messages: list[AddRequest],
        params: SamplingParams,
        tokenizer: Tokenizer | None,
        *,
        with_metrics: bool = True,
    ) -> None:
        """messages: what was (or will be) sent for it, one for each sequence of the reservation.

        with_metrics: give out `metrics` with the outputs.
        """
        self.reservation = reservation
        self.request_id = reservation.request_id
        self.prompt = prompt
        self.prompt_token_ids = messages[0].prompt_token_ids
        self.params = params
        self.messages = messages
        self.completions = [
            CompletionState(index, message, params, tokenizer)
            for index, message in enumerate(messages)
        ]
        self.exception: BaseException | None = None
        self.num_cached_tokens: int | None = None
        self.sent_s: float | None = None
        """When it went to the present engine process; None while it is kept in the book."""
        self.was_sent = False
        """Whether it went to any."""
        self.timer: Timer | None = None
        """Rings at its next deadline."""
        self.metrics = RequestMetrics(arrival_time=time.time(), queued_ts=reservation.arrival_s)
        self._with_metrics = with_metrics
        self._tokenizer = tokenizer
        self._prompt_logprobs: PromptLogprobs | None = None
        self._has_sent_prompt_logprobs = False
        self._num_unfinished = len(messages)
        self._news = asyncio.Event()
        self._end = asyncio.Event()

    @property
    def is_finished(self) -> bool:
        return self._num_unfinished == 0 or self.exception is not None

    @property
    def num_strikes(self) -> int:
        """Of the completion that has most: another one's tokens say nothing about that one."""
        unfinished = (each for each in self.completions if each.finish_reason is None)
        return max((each.num_strikes for each in unfinished), default=0)

    @property
    def is_suspect(self) -> bool:
        """Is one of its completions under suspicion?"""
        return any(each.is_suspect for each in self.completions if each.finish_reason is None)

    def send(self, now: float) -> list[AddRequest]:
        """What the engine needs to run it, from where it is; it counts as sent."""
        self.sent_s = now
        self.was_sent = True
        messages = []
        for message, completion in zip(self.messages, self.completions, strict=True):
            if completion.finish_reason is None:
                completion.is_running = False
                messages.append(_continued(message, completion))
        return messages

    def recall(self, *, has_failed: bool) -> bool:
        """The engine is gone: it counts as not sent. True if it was running there."""
        self.sent_s = None
        were_running = [each.recall(has_failed=has_failed) for each in self.completions]
        return any(were_running)

    def withdraw(self) -> list[str]:
        """It counts as not sent, though the engine lives; returns what that must drop."""
        self.sent_s = None
        return [each.sequence_id for each in self.completions if each.finish_reason is None]

    def apply(self, completion: CompletionState, output: TokenOutput, now: float) -> bool:
        """Add one step's outcome for one completion; True if the engine must abort it."""
        metrics = self.metrics
        if output.queue_s is not None:
            if metrics.scheduled_ts == 0.0 and self.sent_s is not None:
                metrics.scheduled_ts = self.sent_s + output.queue_s
            self.num_cached_tokens = max(self.num_cached_tokens or 0, output.num_cached_tokens or 0)
        if output.token_ids:
            if metrics.first_token_ts == 0.0:
                metrics.first_token_ts = now
                metrics.first_token_latency = now - metrics.queued_ts
            metrics.last_token_ts = now
            metrics.num_generation_tokens += len(output.token_ids)
            completion.last_token_s = now
        metrics.num_preemptions += output.num_preemptions
        if output.prompt_logprobs is not None and self._prompt_logprobs is None:
            self._prompt_logprobs = [None] + [
                describe_logprobs(position, self._tokenizer) for position in output.prompt_logprobs
            ]
        has_matched = completion.apply(output)
        if completion.finish_reason is not None:
            self._num_unfinished -= 1
        self._notify()
        return has_matched

    def finish(self, reason: str) -> None:
        """End every completion still running, from the front end's side."""
        for completion in self.completions:
            completion.finish(reason)
        self._num_unfinished = 0
        self._notify()

    def expire(self, now: float) -> list[CompletionState]:
        """End the completions that have missed a deadline, with "abort" and its name."""
        ended = []
        for completion in self.completions:
            missed = self.reservation.deadlines.missed(
                now,
                was_scheduled=completion.was_scheduled,
                has_output=bool(completion.token_ids),
            )
            if completion.finish_reason is None and missed is not None:
                completion.finish("abort", missed)
                ended.append(completion)
        if ended:
            self._num_unfinished -= len(ended)
            self._notify()
        return ended

    def fail(self, exception: BaseException) -> None:
        """Make the consumer's next read raise; what it has not read yet is dropped."""
        self.exception = exception
        self._notify()

    async def wait(self) -> None:
        """Sleep until there may be something to take."""
        await self._news.wait()

    async def wait_until_finished(self) -> None:
        """Sleep until the last completion has ended, whether or not anybody reads it."""
        await self._end.wait()

    def take(self) -> RequestOutput | None:
        """Everything new as one output; None if there is nothing to read yet.

        Raises the exception given to `fail`.
        """
        if self.exception is not None:
            raise self.exception
        self._news.clear()
        is_finished = self._num_unfinished == 0
        kind = self.params.output_kind
        if kind is RequestOutputKind.FINAL_ONLY:
            if not is_finished:
                return None
            chosen = self.completions
        else:
            chosen = [completion for completion in self.completions if completion.has_news]
            if not chosen:
                return None
        is_delta = kind is RequestOutputKind.DELTA
        return RequestOutput(
            self.request_id,
            self.prompt,
            self.prompt_token_ids,
            self._take_prompt_logprobs(is_delta=is_delta),
            [completion.take(is_delta=is_delta) for completion in chosen],
            is_finished,
            self.metrics if self._with_metrics else None,
            num_cached_tokens=self.num_cached_tokens,
        )

    def describe(self, now: float) -> FinishedRequest:
        """Sum up a finished request for the watchers."""
        metrics = self.metrics
        was_scheduled = metrics.scheduled_ts > 0.0
        has_tokens = metrics.first_token_ts > 0.0
        ended = [c for c in self.completions if c.finish_reason is not None]
        finish_reason = ended[-1].finish_reason if ended and self.exception is None else "error"
        stop_reason = ended[-1].stop_reason if finish_reason == "abort" else None
        return FinishedRequest(
            request_id=self.request_id,
            finish_reason=finish_reason or "error",
            stop_reason=None if stop_reason is None else str(stop_reason),
            tenant=self.reservation.tenant,
            num_prompt_tokens=len(self.prompt_token_ids),
            num_generation_tokens=metrics.num_generation_tokens,
            max_num_generation_tokens=max(len(c.token_ids) for c in self.completions),
            num_cached_tokens=self.num_cached_tokens or 0,
            max_tokens=self.params.max_tokens,
            n=self.params.n,
            num_preemptions=metrics.num_preemptions,
            e2e_s=now - metrics.queued_ts,
            queue_s=metrics.scheduled_ts - metrics.queued_ts if was_scheduled else None,
            ttft_s=metrics.first_token_ts - metrics.queued_ts if has_tokens else None,
            prefill_s=metrics.first_token_ts - metrics.scheduled_ts if has_tokens else None,
            decode_s=metrics.last_token_ts - metrics.first_token_ts if has_tokens else None,
        )

    def _take_prompt_logprobs(self, *, is_delta: bool) -> PromptLogprobs | None:
        if is_delta and self._has_sent_prompt_logprobs:
            return None
        self._has_sent_prompt_logprobs = self._prompt_logprobs is not None
        return self._prompt_logprobs

    def _notify(self) -> None:
        self._news.set()
        if self.is_finished:
            self._end.set()


def _continued(message: AddRequest, completion: CompletionState) -> AddRequest:
    """The message that lets another engine go on where the last one was."""
    if not completion.was_scheduled:
        return message
    # It has waited its turn once.
    deadlines = msgspec.structs.replace(message.deadlines, queue_s=None)
    return msgspec.structs.replace(
        message, output_token_ids=completion.token_ids.copy(), deadlines=deadlines
    )


class RequestOutputCollector:
    """A handle to one submitted request, for callers that want no generator."""

    def __init__(self, state: RequestState, abort: Callable[[RequestState], None]) -> None:
        self._state = state
        self._abort = abort

    @property
    def request_id(self) -> str:
        """The engine's id of the (first) sequence."""
        return self._state.completions[0].sequence_id

    async def get(self) -> RequestOutput:
        """Wait for something new and return it."""
        while (output := self._state.take()) is None:
            await self._state.wait()
        return output

    def get_nowait(self) -> RequestOutput | None:
        return self._state.take()

    def close(self) -> None:
        """Abort the request if it still runs."""
        self._abort(self._state)


def describe_logprobs(position: TokenLogprobs, tokenizer: Tokenizer | None) -> PositionLogprobs:
    """As the API shows one position: the sampled (or prompt) token first, then the top k."""
    described: PositionLogprobs = {}
    for token_id, logprob, rank in zip(
        position.token_ids, position.logprobs, position.ranks, strict=True
    ):
        if token_id not in described:
            text = None if tokenizer is None else tokenizer.token_to_text(token_id)
            described[token_id] = Logprob(logprob, rank, text)
    return described
