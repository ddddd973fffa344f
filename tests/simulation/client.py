"""One request's client: it reads, slowly or not, to the end or not, and checks all that it gets."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

from tests.simulation.front_end import FrontEnd
from tests.simulation.model import Answer, expected
from tests.simulation.plan import Plan, RequestPlan
from tests.simulation.violation import Violation, demand
from tests.simulation.world import World
from wheelpit.errors import EngineDeadError, EngineGenerateError, OverloadedError, ValidationError
from wheelpit.request import CompletionOutput, RequestOutput, RequestOutputKind, SamplingParams


def request_is_at_fault(request: RequestPlan, error: EngineGenerateError) -> bool:
    return request.is_unencodable and "TypeError" in str(error)


class Client:
    """Written only by its own task. ending: how the request ended for it; None while it lives."""

    def __init__(self, world: World, plan: Plan, front_end: FrontEnd, request: RequestPlan) -> None:
        self._world = world
        self._plan = plan
        self._front_end = front_end
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self.ending: str | None = None
        self.violation: Violation | None = None
        self.last: dict[int, CompletionOutput] = {}
        self.is_over = False
        self.was_admitted = False
        """Was there an engine to ask?"""
        self.arrival_s = 0.0
        self.ended_s: float | None = None
        self._seen: dict[int, list[int]] = {index: [] for index in range(request.n)}
        self._text: dict[int, str] = dict.fromkeys(range(request.n), "")
        self._num_outputs = 0
        self._answers: list[Answer] = []

    def arrive(self) -> None:
        request = self.request
        self._world.say(
            f"request {request.number} arrives: {len(request.prompt)} + {request.max_tokens} "
            f"tokens, n={request.n}, {request.style}"
        )
        self.task = self._world.spawn(self._run())
        self.task.set_name(str(request.number))
        self.arrival_s = self._world.clock.now
        self.was_admitted = not self._front_end.link.is_dead
        if request.leaves_s is not None:
            self._world.set_timer(request.leaves_s, self._leave)
        if request.aborted_s is not None:
            self._world.set_timer(request.aborted_s, self._abort)

    def _leave(self) -> None:
        if self.task is not None and not self.task.done():
            self._world.say(f"request {self.request.number}: its client leaves")
            self.task.cancel()

    def _abort(self) -> None:
        self._world.say(f"request {self.request.number}: somebody aborts its id")
        self._front_end.on_abort(self.request.request_id)
        self._world.spawn(self._front_end.engine.abort(self.request.request_id))

    async def _run(self) -> None:
        try:
            await self._submit()
            if self.ending is None:
                self.ending = "finished" if self.is_over else "left"
        except asyncio.CancelledError:
            self.ending = "left"
        except OverloadedError as error:
            self.ending = f"refused ({error.reason})"
            demand(not self._num_outputs, "refused after an output")
            demand(1.0 <= error.retry_after_s <= 600.0, f"retry after {error.retry_after_s} s")
        except ValidationError:
            self.ending = "invalid"
        except EngineDeadError:
            self.ending = "dead"
        except EngineGenerateError as error:
            self.ending = "broken"
            demand(request_is_at_fault(self.request, error), f"a fault of ours: {error}")
        except Violation as violation:
            self.violation, self.ending = violation, "violation"
        except BaseException as error:
            self.violation = Violation(f"request {self.request.number}: {error!r}")
            self.ending = "violation"
        self.ended_s = self._world.clock.now
        self._world.say(f"request {self.request.number} ends: {self.describe()}")

    def describe(self) -> str:
        reasons = [
            f"{output.finish_reason} {output.stop_reason or ''}".strip()
            for output in self.last.values()
            if output.finish_reason
        ]
        return f"{self.ending}" + (f": {', '.join(reasons)}" if reasons else "")

    # --- the three ways to ask

    async def _submit(self) -> None:
        request, engine = self.request, self._front_end.engine
        prompt = self._prompt()
        timeouts: dict[str, Any] = {
            "timeout": request.timeout,
            "queue_timeout": request.queue_timeout,
            "ttft_timeout": request.ttft_timeout,
        }
        said: dict[str, Any] = {"priority": request.priority, "tenant": request.tenant, **timeouts}
        if request.style == "collector":
            collector = await engine.add_request(request.request_id, prompt, self._params(), **said)
            try:
                while not self.is_over and not self._is_bored():
                    await self._take(await collector.get())
            finally:
                collector.close()
            return
        if request.style == "reserved":
            place = engine.reserve(
                request.request_id, num_tokens=len(request.prompt) + 3, n=request.n, **said
            )
            try:
                await self._world.sleep(request.tokenize_s)
                given: dict[str, Any] = {"reservation": place}
                await self._read(
                    engine.generate(prompt, self._params(), request.request_id, **given)
                )
            except BaseException as error:
                is_error = isinstance(error, Exception)
                engine.release(place, error if is_error else None)
                raise
            return
        await self._read(engine.generate(prompt, self._params(), request.request_id, **said))

    async def _read(self, outputs) -> None:
        async with aclosing(outputs):
            async for output in outputs:
                await self._take(output)
                if self._is_bored():
                    break

    def _is_bored(self) -> bool:
        return self._num_outputs == self.request.leaves_after

    def _prompt(self) -> Any:
        request = self.request
        salt = {} if request.cache_salt is None else {"cache_salt": request.cache_salt}
        if request.is_text:
            text = "".join(self._front_end.tokenizer.letter(token) for token in request.prompt)
            return {"prompt": text, **salt}
        return {"prompt_token_ids": list(request.prompt), **salt}

    def _params(self) -> SamplingParams:
        request = self.request
        return SamplingParams(
            n=request.n,
            temperature=1.0,
            seed=request.seed,
            stop=list(request.stop),
            stop_token_ids=list(request.stop_token_ids),
            ignore_eos=request.ignore_eos,
            max_tokens=request.max_tokens,
            min_tokens=request.min_tokens,
            logprobs=0 if request.wants_logprobs else None,
            prompt_logprobs=0 if request.wants_prompt_logprobs else None,
            output_kind=request.output_kind,
            extra_args={
                "number": request.number,
                **({"callback": print} if request.is_unencodable else {}),
            },
        )

    # --- what comes

    async def _take(self, output: RequestOutput) -> None:
        request = self.request
        demand(not self.is_over, f"request {request.number} goes on after its end")
        self._num_outputs += 1
        self.is_over = output.finished
        for completion in output.outputs:
            self._take_completion(completion)
        if output.finished:
            demand(
                all(
                    index in self.last and self.last[index].finish_reason is not None
                    for index in range(request.n)
                ),
                f"request {request.number} has finished, not all of its completions",
            )
            self._check_prompt_logprobs(output)
        elif request.output_kind is RequestOutputKind.FINAL_ONLY:
            raise Violation(f"request {request.number} wanted no output but the last")
        if request.pause_s and not output.finished:
            await self._world.sleep(request.pause_s)

    def _take_completion(self, output: CompletionOutput) -> None:
        index, number = output.index, self.request.number
        name = f"request {number}.{index}"
        before = self.last.get(index)
        demand(before is None or before.finish_reason is None, f"{name} goes on after its end")
        self.last[index] = output
        seen = self._seen[index]
        if self.request.output_kind is RequestOutputKind.DELTA:
            seen += output.token_ids
            self._text[index] += output.text
        else:
            demand(output.token_ids[: len(seen)] == seen, f"{name} takes tokens back")
            demand(output.text.startswith(self._text[index]), f"{name} takes text back")
            self._seen[index] = seen = list(output.token_ids)
            self._text[index] = output.text
        if not self._answers:
            self._answers = [
                expected(self._plan, self.request, each) for each in range(self.request.n)
            ]
        right = self._answers[index]
        demand(seen == right.token_ids[: len(seen)], f"{name} got {seen}, not {right.token_ids}")
        text = self._text[index]
        if output.finish_reason in ("stop", "length"):
            got = (seen, output.finish_reason, output.stop_reason, text)
            wanted = (right.token_ids, right.finish_reason, right.stop_reason, right.text)
            demand(got == wanted, f"{name} ended as {got}, not {wanted}")
        elif output.finish_reason is not None:
            demand(len(seen) < len(right.token_ids), f"{name} was complete: {output.finish_reason}")
            # The start of a stop string was held back, and is text after all.
            letters = "".join(map(self._front_end.tokenizer.letter, seen))
            demand(letters.startswith(text), f"{name} has text {text!r}, not {letters!r}")
        else:
            demand(right.text.startswith(text), f"{name} has text {text!r}, not {right.text!r}")
        if self.request.wants_logprobs and self.request.output_kind is not RequestOutputKind.DELTA:
            logprobs = output.logprobs or []
            tokens = [next(iter(position)) for position in logprobs]
            demand(tokens == seen, f"{name} has log-probabilities of {tokens}, got {seen}")

    def _check_prompt_logprobs(self, output: RequestOutput) -> None:
        request = self.request
        has_all = any(completion.token_ids for completion in self.last.values())
        if request.output_kind is RequestOutputKind.DELTA or not has_all:
            return
        if request.wants_prompt_logprobs:
            found = [
                next(iter(position)) if position else None
                for position in output.prompt_logprobs or []
            ]
            demand(found == [None, *request.prompt[1:]], f"prompt logprobs of {found}")
