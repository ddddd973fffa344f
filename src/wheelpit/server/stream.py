"""From the engine's outputs to the events of one stream, for chat and completions alike."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from wheelpit.request import CompletionOutput, RequestOutput
from wheelpit.server.generation import Outputs, check_output, is_late, raise_if_late
from wheelpit.server.protocol import StreamOptions
from wheelpit.server.responses import PromptTokensDetails, Usage
from wheelpit.server.sse import DONE, ChunkWriter


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What the chunks of one answer carry."""

    writer: ChunkWriter
    n: int
    opening: Callable[[int, RequestOutput], bytes]
    """The chunks before a prompt's first text: (index of the prompt, its first output)."""
    describe_logprobs: Callable[[int, CompletionOutput], object] | None
    """What is under "logprobs": (index of the choice, its new tokens)."""
    fingerprint: str
    include_usage: bool
    continuous_usage: bool
    return_token_ids: bool
    is_prompt_only: bool = False
    """echo with max_tokens=0: the token that the engine had to make is left out."""

    @property
    def is_plain(self) -> bool:
        """Chunks carry text only, until the last one."""
        return not (self.describe_logprobs or self.continuous_usage or self.return_token_ids)


class UsageCount:
    """Counts one stream's tokens; written only by its `_Pieces`."""

    def __init__(self) -> None:
        self.num_prompt_tokens = 0
        self.num_cached_tokens = 0
        self.num_completion_tokens = 0

    def add_prompt(self, first: RequestOutput) -> None:
        self.num_prompt_tokens += len(first.prompt_token_ids or ())
        self.num_cached_tokens += first.num_cached_tokens or 0

    @property
    def usage(self) -> Usage:
        return Usage(
            self.num_prompt_tokens,
            self.num_prompt_tokens + self.num_completion_tokens,
            self.num_completion_tokens,
            PromptTokensDetails(self.num_cached_tokens),
        )


def wants_usage(options: StreamOptions | None, *, is_forced: bool) -> tuple[bool, bool]:
    """(at the end, on every chunk)."""
    include = is_forced or bool(options and options.include_usage)
    continuous = is_forced or bool(options and options.continuous_usage_stats)
    return include, include and continuous


async def events(
    outputs: Outputs, plan: StreamPlan, has_begun: Callable[[], bool]
) -> AsyncGenerator[bytes, None]:
    """Yield what one output brought as one piece.

    has_begun: whether anything was sent to the client. If not, and time was over for all of it
    before there was a token, DeadlineMissedError.
    """
    pieces = _Pieces(plan)
    late: list[tuple[int, RequestOutput]] = []
    async with aclosing(outputs):
        async for prompt_index, output in outputs:
            if not pieces.opened and is_late(output):
                # Its last chunk can wait until it is known whether this will be an answer at all.
                late.append((prompt_index, output))
            elif piece := pieces.of(prompt_index, output):
                yield piece
    if not (pieces.opened or has_begun()):
        raise_if_late([output for _, output in late])
    for prompt_index, output in late:
        yield pieces.of(prompt_index, output)
    yield pieces.end()


class _Pieces:
    """Writes the pieces of one stream; used only by `events`."""

    def __init__(self, plan: StreamPlan) -> None:
        self.opened: set[int] = set()
        """The prompts that had a piece."""
        self._plan = plan
        self._is_plain = plan.is_plain
        self._count = UsageCount()

    def of(self, prompt_index: int, output: RequestOutput) -> bytes:
        """Everything that an output brought; it may be nothing that is shown."""
        plan, count = self._plan, self._count
        parts: list[bytes] = []
        if prompt_index not in self.opened:
            check_output(output)
            self.opened.add(prompt_index)
            count.add_prompt(output)
            parts.append(plan.opening(prompt_index, output))
        for completion in output.outputs:
            index = prompt_index * plan.n + completion.index
            if plan.is_prompt_only:
                parts.append(_prompt_end(plan, index, completion, count))
                continue
            count.num_completion_tokens += len(completion.token_ids)
            if completion.finish_reason is not None or not self._is_plain:
                parts.append(_detailed(plan, index, completion, count))
            elif completion.text:
                parts.append(plan.writer.plain(index, completion.text))
        if output.finished:
            check_output(output)
        return b"".join(parts)

    def end(self) -> bytes:
        if self._plan.include_usage:
            return self._plan.writer.usage(self._count.usage) + DONE
        return DONE


def _detailed(
    plan: StreamPlan, index: int, completion: CompletionOutput, count: UsageCount
) -> bytes:
    """A chunk with all that the plan wants; nothing at all if there is no news to carry."""
    is_last = completion.finish_reason is not None
    if not (is_last or completion.text or completion.token_ids):
        return b""
    choice: dict[str, object] = {}
    top: dict[str, object] = {}
    if is_last:
        choice["stop_reason"] = completion.stop_reason
        top["system_fingerprint"] = plan.fingerprint
    if plan.return_token_ids:
        choice["token_ids"] = list(completion.token_ids)
    if plan.continuous_usage:
        top["usage"] = count.usage
    logprobs = None
    if plan.describe_logprobs is not None and completion.token_ids:
        logprobs = plan.describe_logprobs(index, completion)
    return plan.writer.chunk(
        index, completion.text, choice, top, logprobs, completion.finish_reason
    )


def _prompt_end(
    plan: StreamPlan, index: int, completion: CompletionOutput, count: UsageCount
) -> bytes:
    top: dict[str, object] = {"system_fingerprint": plan.fingerprint}
    if plan.continuous_usage:
        top["usage"] = count.usage
    reason, stop = prompt_only_end(completion)
    return plan.writer.chunk(index, "", {"stop_reason": stop}, top, None, reason)


def prompt_only_end(completion: CompletionOutput) -> tuple[str, int | str | None]:
    """How a prompt without a completion has ended: the token after it was made, or it was not."""
    if completion.finish_reason == "abort":
        return "abort", completion.stop_reason
    return "length", None
