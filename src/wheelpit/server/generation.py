"""Run one HTTP request's prompts through the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from wheelpit.errors import EngineGenerateError
from wheelpit.request import PromptType, RequestOutput, SamplingParams, TokensPrompt
from wheelpit.server.prompts import Prompt
from wheelpit.server.service import Service


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One prompt as it goes to the engine. request_id: the engine's and the log's."""

    request_id: str
    prompt: Prompt
    params: SamplingParams
    priority: int
    cache_salt: str | None
    arrival_time: float
    """Seconds since the epoch; before the prompt was tokenized."""

    @property
    def engine_prompt(self) -> PromptType:
        prompt = TokensPrompt(prompt_token_ids=self.prompt.token_ids)
        if self.prompt.text is not None:
            prompt["prompt"] = self.prompt.text
        if self.cache_salt is not None:
            prompt["cache_salt"] = self.cache_salt
        return prompt


async def run(
    service: Service, calls: Sequence[EngineCall]
) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """Yield (index of the call, output) as they come. Closing it aborts what still runs."""
    if len(calls) > 1:
        async with aclosing(_run_together(service, calls)) as pairs:
            async for pair in pairs:
                yield pair
        return
    (call,) = calls
    with service.active.hold(call.request_id):
        async with aclosing(_generate(service, call)) as outputs:
            async for output in outputs:
                yield 0, output


async def run_whole(service: Service, calls: Sequence[EngineCall]) -> list[RequestOutput]:
    """The final outputs, in the calls' order. EngineGenerateError if one failed in the engine."""
    finals: list[RequestOutput | None] = [None] * len(calls)
    async with aclosing(run(service, calls)) as pairs:
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


async def _run_together(
    service: Service, calls: Sequence[EngineCall]
) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """Merge several generations. The queue is short, so a slow reader holds the pumps back."""
    queue: asyncio.Queue[tuple[int, RequestOutput | Exception | None]] = asyncio.Queue(len(calls))

    async def pump(index: int, call: EngineCall) -> None:
        try:
            with service.active.hold(call.request_id):
                async with aclosing(_generate(service, call)) as outputs:
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


def _generate(service: Service, call: EngineCall) -> AsyncGenerator[RequestOutput, None]:
    return service.engine.generate(
        call.engine_prompt,
        call.params,
        call.request_id,
        priority=call.priority,
        arrival_time=call.arrival_time,
    )
