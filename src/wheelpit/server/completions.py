"""POST /v1/completions."""

from __future__ import annotations

import asyncio
import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from wheelpit.request import CompletionOutput, PositionLogprobs, RequestOutput
from wheelpit.server.auth import principal_of, tenant_of
from wheelpit.server.body import read_json
from wheelpit.server.generation import EngineCall
from wheelpit.server.generation_response import GenerationResponse, Job, Prepared, reading
from wheelpit.server.large_prompt import check_large_prompt
from wheelpit.server.logprobs import (
    CompletionLogprobs,
    TextOffsets,
    TokenNames,
    completion_logprobs,
)
from wheelpit.server.prompts import (
    Truncation,
    check_num_choices,
    estimate_prompt,
    read_prompt,
    split_prompts,
)
from wheelpit.server.protocol import CompletionRequest
from wheelpit.server.request_id import choose_request_id
from wheelpit.server.responses import (
    CompletionAnswer,
    CompletionChoice,
    Usage,
    prompt_logprobs_body,
)
from wheelpit.server.sampling import fit_max_tokens, sampling_params
from wheelpit.server.service import Service
from wheelpit.server.sse import ChunkWriter
from wheelpit.server.stream import StreamPlan, prompt_only_end, wants_usage
from wheelpit.server.unsupported import check_completion

DEFAULT_MAX_TOKENS = 16
"""OpenAI's, for completions."""


class CompletionRoute:
    """Continues prompts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decoder = msgspec.json.Decoder(CompletionRequest)

    async def create(self, request: Request) -> Response:
        """Continue one or several prompts, whole or as a stream of server-sent events."""
        service = self._service
        with reading(request):
            body = await read_json(
                request,
                self._decoder,
                service.options.max_body_bytes,
                lambda body: check_large_prompt(body, service),
            )
            arrival_time = time.time()
            request_id = f"cmpl-{choose_request_id(request, body.request_id)}"
            prompts = split_prompts(body.prompt)
            check_num_choices(len(prompts), body.n)
        owner = principal_of(request.scope)
        job = Job(
            request_id,
            body,
            owner,
            tenant_of(owner, body.user),
            arrival_time,
            [
                (f"{request_id}-{index}", estimate_prompt(prompt, body))
                for index, prompt in enumerate(prompts)
            ],
            lambda: self._prepare_all(body, prompts, request_id),
        )
        return GenerationResponse(service, job)

    async def _prepare_all(
        self, body: CompletionRequest, prompts: list[str | list[int]], request_id: str
    ) -> Prepared:
        self._service.check_model(body.model)
        check_completion(body)
        calls: list[EngineCall] = []
        for prompt in prompts:
            calls.append(await self._prepare(body, prompt))
            # Short prompts are tokenized right here: let others have their turn in between.
            await asyncio.sleep(0)
        return Prepared(calls, _Answer(self._service, body, request_id))

    async def _prepare(self, body: CompletionRequest, prompt: str | list[int]) -> EngineCall:
        model = self._service.model
        # The engine always makes a token; for a prompt alone it is left out of the answer.
        asked = 1 if is_prompt_only(body) else body.max_tokens
        read = await read_prompt(
            self._service,
            prompt,
            Truncation.of(body, asked or DEFAULT_MAX_TOKENS, model.max_model_len),
            add_special_tokens=body.add_special_tokens,
        )
        prompt_logprobs = body.prompt_logprobs
        if prompt_logprobs is None and body.echo:
            prompt_logprobs = body.logprobs
        params = sampling_params(
            body,
            model.default_sampling_params,
            max_tokens=fit_max_tokens(
                asked, DEFAULT_MAX_TOKENS, len(read.token_ids), model.max_model_len
            ),
            logprobs=body.logprobs,
            prompt_logprobs=prompt_logprobs,
        )
        return EngineCall(read, params, body.cache_salt)


def is_prompt_only(body: CompletionRequest) -> bool:
    """True for echo with max_tokens=0: the prompt (and its logprobs) is all that is wanted."""
    return bool(body.echo) and body.max_tokens == 0


class _Answer:
    """Puts one request's outputs into OpenAI's shapes."""

    def __init__(self, service: Service, body: CompletionRequest, request_id: str) -> None:
        self._service = service
        self._body = body
        self._id = request_id
        self._created = int(time.time())
        self._n = body.n or 1
        as_ids = body.return_tokens_as_token_ids
        if as_ids is None:
            as_ids = service.options.return_tokens_as_token_ids
        self._as_ids = as_ids

    def whole(self, finals: list[RequestOutput]) -> CompletionAnswer:
        return CompletionAnswer(
            id=self._id,
            created=self._created,
            model=self._service.model_name,
            choices=[
                self._choice(prompt_index * self._n + completion.index, final, completion)
                for prompt_index, final in enumerate(finals)
                for completion in final.outputs
            ],
            system_fingerprint=self._service.fingerprint,
            usage=Usage.of(finals, 0 if is_prompt_only(self._body) else None),
        )

    def _choice(
        self, index: int, final: RequestOutput, completion: CompletionOutput
    ) -> CompletionChoice:
        body = self._body
        text, token_ids = completion.text, list(completion.token_ids)
        positions: list[PositionLogprobs | None] = list(completion.logprobs or ())
        finish_reason, stop_reason = completion.finish_reason, completion.stop_reason
        if is_prompt_only(body):
            text, token_ids, positions = "", [], []
            finish_reason, stop_reason = prompt_only_end(completion)
        shown_ids = token_ids
        if body.echo:
            text = self._prompt_text(final) + text
            if body.logprobs is not None:
                positions = [*_prompt_positions(final), *positions]
                shown_ids = [*(final.prompt_token_ids or ()), *token_ids]
        logprobs = None
        if body.logprobs is not None:
            names = self._names()
            offsets = TextOffsets(names.tokenizer)
            logprobs = completion_logprobs(shown_ids, positions, offsets, names)
        return CompletionChoice(
            index=index,
            text=text,
            logprobs=logprobs,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            token_ids=token_ids if body.return_token_ids else None,
            prompt_logprobs=(
                None
                if body.prompt_logprobs is None
                else prompt_logprobs_body(final.prompt_logprobs)
            ),
            prompt_token_ids=final.prompt_token_ids if body.return_token_ids else None,
        )

    def stream_plan(self) -> StreamPlan:
        body = self._body
        head = {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._service.model_name,
        }
        writer = ChunkWriter(head, b'"text":', b"")
        include_usage, continuous_usage = wants_usage(
            body.stream_options, is_forced=self._service.options.force_include_usage
        )
        logprobs = None if body.logprobs is None else _StreamedLogprobs(self._names())

        def opening(prompt_index: int, first: RequestOutput) -> bytes:
            if not (body.echo or body.return_token_ids):
                return b""
            text = self._prompt_text(first) if body.echo else ""
            more = {"prompt_token_ids": first.prompt_token_ids} if body.return_token_ids else {}
            parts: list[bytes] = []
            for index in range(prompt_index * self._n, (prompt_index + 1) * self._n):
                described = None
                if body.echo and logprobs is not None:
                    described = logprobs.describe(
                        index, first.prompt_token_ids or [], _prompt_positions(first)
                    )
                parts.append(writer.chunk(index, text, more, {}, described))
            return b"".join(parts)

        return StreamPlan(
            writer,
            self._n,
            opening,
            None if logprobs is None else logprobs.describe_new,
            self._service.fingerprint,
            include_usage,
            continuous_usage,
            bool(body.return_token_ids),
            is_prompt_only(body),
        )

    def _prompt_text(self, output: RequestOutput) -> str:
        if output.prompt is not None:
            return output.prompt
        return self._service.tokenizer.decode(
            output.prompt_token_ids or [], skip_special_tokens=self._body.skip_special_tokens
        )

    def _names(self) -> TokenNames:
        return TokenNames(self._service.tokenizer, self._as_ids)


def _prompt_positions(output: RequestOutput) -> list[PositionLogprobs | None]:
    """One entry for each token of the prompt; a request that ended too early has no scores."""
    return list(output.prompt_logprobs or [None] * len(output.prompt_token_ids or ()))


class _StreamedLogprobs:
    """Keeps each choice's place in its text between its chunks; written only by its stream."""

    def __init__(self, names: TokenNames) -> None:
        self._names = names
        self._offsets: dict[int, TextOffsets] = {}

    def describe_new(self, index: int, completion: CompletionOutput) -> CompletionLogprobs:
        return self.describe(index, list(completion.token_ids), list(completion.logprobs or ()))

    def describe(
        self, index: int, token_ids: list[int], positions: list[PositionLogprobs | None]
    ) -> CompletionLogprobs:
        offsets = self._offsets.setdefault(index, TextOffsets(self._names.tokenizer))
        return completion_logprobs(token_ids, positions, offsets, self._names)
