"""From the engine's outputs to the events of one stream, for chat and completions alike."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from wheelpit.request import CompletionOutput, RequestOutput
from wheelpit.server.generation import check_output
from wheelpit.server.protocol import StreamOptions
from wheelpit.server.responses import PromptTokensDetails, Usage
from wheelpit.server.sse import DONE, ChunkWriter

Outputs = AsyncGenerator[tuple[int, RequestOutput], None]


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
    """Counts one stream's tokens; written only by `events`."""

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


async def events(outputs: Outputs, plan: StreamPlan) -> AsyncGenerator[bytes, None]:
    """Yield what one output brought as one piece; closing it aborts the generation."""
    count = UsageCount()
    opened: set[int] = set()
    is_plain = plan.is_plain
    async with aclosing(outputs):
        async for prompt_index, output in outputs:
            parts: list[bytes] = []
            if prompt_index not in opened:
                check_output(output)
                opened.add(prompt_index)
                count.add_prompt(output)
                parts.append(plan.opening(prompt_index, output))
            for completion in output.outputs:
                index = prompt_index * plan.n + completion.index
                if plan.is_prompt_only:
                    parts.append(_prompt_end(plan, index, count))
                    continue
                count.num_completion_tokens += len(completion.token_ids)
                if completion.finish_reason is not None or not is_plain:
                    parts.append(_detailed(plan, index, completion, count))
                elif completion.text:
                    parts.append(plan.writer.plain(index, completion.text))
            if output.finished:
                check_output(output)
            if piece := b"".join(parts):
                yield piece
    if plan.include_usage:
        yield plan.writer.usage(count.usage) + DONE
    else:
        yield DONE


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


def _prompt_end(plan: StreamPlan, index: int, count: UsageCount) -> bytes:
    top: dict[str, object] = {"system_fingerprint": plan.fingerprint}
    if plan.continuous_usage:
        top["usage"] = count.usage
    return plan.writer.chunk(index, "", {"stop_reason": None}, top, None, "length")
