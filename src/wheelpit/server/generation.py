"""Run one HTTP request's prompts through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from wheelpit.errors import EngineGenerateError
from wheelpit.request import (
    CompletionOutput,
    PromptType,
    RequestOutput,
    SamplingParams,
    TokensPrompt,
)
from wheelpit.server.errors import DeadlineMissedError
from wheelpit.server.live_requests import LiveRequest
from wheelpit.server.prompts import Prompt

TIMEOUTS = frozenset({"timeout", "queue_timeout", "ttft_timeout"})
"""The `stop_reason` of a completion that missed a deadline."""

Outputs = AsyncGenerator[tuple[int, RequestOutput], None]


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One prompt as it goes to the engine."""

    prompt: Prompt
    params: SamplingParams
    cache_salt: str | None

    @property
    def engine_prompt(self) -> PromptType:
        prompt = TokensPrompt(prompt_token_ids=self.prompt.token_ids)
        if self.prompt.text is not None:
            prompt["prompt"] = self.prompt.text
        if self.cache_salt is not None:
            prompt["cache_salt"] = self.cache_salt
        return prompt


async def run(live: LiveRequest, calls: Sequence[EngineCall]) -> Outputs:
    """Yield (index of the call, output) as they come. Whoever holds `live` aborts what is left."""
    if len(calls) > 1:
        async with aclosing(_run_together(live, calls)) as pairs:
            async for pair in pairs:
                yield pair
        return
    async with aclosing(_generate(live, 0, calls[0])) as outputs:
        async for output in outputs:
            yield 0, output


async def run_whole(live: LiveRequest, calls: Sequence[EngineCall]) -> list[RequestOutput]:
    """The final outputs, in the calls' order. EngineGenerateError if one failed in the engine."""
    finals: list[RequestOutput | None] = [None] * len(calls)
    async with aclosing(run(live, calls)) as pairs:
        async for index, output in pairs:
            check_output(output)
            finals[index] = output
    done = [final for final in finals if final is not None]
    assert len(done) == len(calls), f"{len(done)} outputs for {len(calls)} prompts"
    return done


def check_output(output: RequestOutput) -> None:
    """Raise EngineGenerateError if a completion ended with "error"."""
    for completion in output.outputs:
        if completion.finish_reason == "error":
            reason = completion.error or "its log has the reason"
            raise EngineGenerateError(
                f"the engine could not finish request {output.request_id}: {reason}"
            )


def is_late(output: RequestOutput) -> bool:
    """Is this the end of a request that missed a deadline before it had any token?"""
    return output.finished and all(
        completion.stop_reason in TIMEOUTS and not completion.token_ids
        for completion in output.outputs
    )


def raise_if_late(finals: Sequence[RequestOutput]) -> None:
    """Raise DeadlineMissedError if there is nothing to answer, because time was over for all."""
    if finals and all(is_late(final) for final in finals):
        raise DeadlineMissedError(str(finals[0].outputs[0].stop_reason))


async def _run_together(live: LiveRequest, calls: Sequence[EngineCall]) -> Outputs:
    """Merge several generations. The queue is short, so a slow reader holds the pumps back."""
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception | None]] = asyncio.Queue(len(calls))

    async def pump(index: int, call: EngineCall) -> None:
        try:
            async with aclosing(_generate(live, index, call)) as outputs:
                async for output in outputs:
                    await queue.put((index, output))
        except Exception as error:
            # Not swallowed: the reader raises it.
            await queue.put((index, error))
        else:
            await queue.put((index, None))

    tasks = [asyncio.create_task(pump(index, call)) for index, call in enumerate(calls)]
    try:
        num_running = len(tasks)
        while num_running:
            index, news = await queue.get()
            if isinstance(news, Exception):
                raise news
            if news is None:
                num_running -= 1
            else:
                yield index, news
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _generate(
    live: LiveRequest, index: int, call: EngineCall
) -> AsyncGenerator[RequestOutput, None]:
    if live.is_cancelled:
        yield _cancelled(live.engine_ids[index], call)
        return
    submitted = await live.submit(index, call.engine_prompt, call.params)
    is_finished = False
    while not is_finished:
        output = await submitted.get()
        is_finished = output.finished
        yield output


def _cancelled(request_id: str, call: EngineCall) -> RequestOutput:
    """What there is of a request that was cancelled before the engine had it."""
    completions = [
        CompletionOutput(index, "", [], None, None, "abort") for index in range(call.params.n)
    ]
    return RequestOutput(
        request_id, call.prompt.text, call.prompt.token_ids, None, completions, True
    )
