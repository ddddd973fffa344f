"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from wheelpit.request import CompletionOutput, RequestOutput
from wheelpit.server.auth import principal_of, tenant_of
from wheelpit.server.body import read_json
from wheelpit.server.generation import EngineCall
from wheelpit.server.generation_response import GenerationResponse, Job, Prepared, reading
from wheelpit.server.logprobs import ChatLogprobs, TokenNames, chat_logprobs
from wheelpit.server.prompts import (
    Prompt,
    Truncation,
    bounded_estimate,
    check_num_choices,
    num_message_chars,
    read_prompt,
    render_chat,
    template_variables,
)
from wheelpit.server.protocol import ChatRequest
from wheelpit.server.request_id import choose_request_id
from wheelpit.server.responses import (
    ChatAnswer,
    ChatChoice,
    ChatMessage,
    Usage,
    prompt_logprobs_body,
)
from wheelpit.server.sampling import fit_max_tokens, sampling_params
from wheelpit.server.service import Service
from wheelpit.server.sse import ChunkWriter
from wheelpit.server.stream import StreamPlan, wants_usage
from wheelpit.server.unsupported import check_chat


class ChatRoute:
    """Answers conversations."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decoder = msgspec.json.Decoder(ChatRequest)

    async def create(self, request: Request) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        service = self._service
        with reading(request):
            body = await read_json(request, self._decoder, service.options.max_body_bytes)
            arrival_time = time.time()
            request_id = f"chatcmpl-{choose_request_id(request, body.request_id)}"
            check_num_choices(1, body.n)
        owner = principal_of(request.scope)
        job = Job(
            request_id,
            body,
            owner,
            tenant_of(owner, body.user),
            arrival_time,
            [(request_id, bounded_estimate(num_message_chars(body.messages), body))],
            lambda: self._prepare(body, request_id),
        )
        return GenerationResponse(service, job)

    async def _prepare(self, body: ChatRequest, request_id: str) -> Prepared:
        self._service.check_model(body.model)
        check_chat(body)
        answer = _Answer(self._service, body, request_id)
        asked = body.max_tokens
        if body.max_completion_tokens is not None:
            asked = body.max_completion_tokens
        model = self._service.model
        prompt = await self._prompt(body, asked)
        default = model.default_sampling_params.get("max_tokens")
        params = sampling_params(
            body,
            model.default_sampling_params,
            max_tokens=fit_max_tokens(asked, default, len(prompt.token_ids), model.max_model_len),
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            prompt_logprobs=body.prompt_logprobs,
        )
        return Prepared([EngineCall(prompt, params, body.cache_salt)], answer)

    async def _prompt(self, body: ChatRequest, max_tokens: int | None) -> Prompt:
        text = await render_chat(
            self._service,
            body.messages,
            template_variables(body),
            tools=body.tools,
            add_generation_prompt=body.add_generation_prompt,
            continue_final_message=body.continue_final_message,
        )
        truncation = Truncation.of(body, max_tokens or 1, self._service.model.max_model_len)
        return await read_prompt(
            self._service, text, truncation, add_special_tokens=body.add_special_tokens
        )


class _Answer:
    """Puts one conversation's outputs into OpenAI's shapes."""

    def __init__(self, service: Service, body: ChatRequest, request_id: str) -> None:
        self._service = service
        self._body = body
        self._id = request_id
        self._created = int(time.time())
        self._role = service.options.response_role
        as_ids = body.return_tokens_as_token_ids
        if as_ids is None:
            as_ids = service.options.return_tokens_as_token_ids
        self._names = TokenNames(service.tokenizer, as_ids)

    def whole(self, finals: list[RequestOutput]) -> ChatAnswer:
        (final,) = finals
        body = self._body
        return ChatAnswer(
            id=self._id,
            created=self._created,
            model=self._service.model_name,
            choices=[self._choice(completion) for completion in final.outputs],
            system_fingerprint=self._service.fingerprint,
            usage=Usage.of([final]),
            prompt_logprobs=prompt_logprobs_body(final.prompt_logprobs),
            prompt_token_ids=final.prompt_token_ids if body.return_token_ids else None,
        )

    def _choice(self, completion: CompletionOutput) -> ChatChoice:
        return ChatChoice(
            index=completion.index,
            message=ChatMessage(role=self._role, content=self._echo() + completion.text),
            logprobs=self._logprobs(completion) if self._body.logprobs else None,
            finish_reason=completion.finish_reason,
            stop_reason=completion.stop_reason,
            token_ids=list(completion.token_ids) if self._body.return_token_ids else None,
        )

    def stream_plan(self) -> StreamPlan:
        body = self._body
        head = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._service.model_name,
        }
        writer = ChunkWriter(head, b'"delta":{"content":', b"}")
        include_usage, continuous_usage = wants_usage(
            body.stream_options, is_forced=self._service.options.force_include_usage
        )

        def opening(_: int, first: RequestOutput) -> bytes:
            delta = {"role": self._role, "content": ""}
            top = {"prompt_token_ids": first.prompt_token_ids} if body.return_token_ids else {}
            echo = self._echo()
            parts: list[bytes] = []
            for index in range(body.n or 1):
                start = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
                parts.append(writer.raw(start, top))
                if echo:
                    parts.append(writer.plain(index, echo))
            return b"".join(parts)

        return StreamPlan(
            writer,
            body.n or 1,
            opening,
            (lambda _, completion: self._logprobs(completion)) if body.logprobs else None,
            self._service.fingerprint,
            include_usage,
            continuous_usage,
            bool(body.return_token_ids),
        )

    def _logprobs(self, completion: CompletionOutput) -> ChatLogprobs:
        return chat_logprobs(
            completion.token_ids,
            completion.logprobs or (),
            self._body.top_logprobs or 0,
            self._names,
        )

    def _echo(self) -> str:
        """The last message's content, if it is to be repeated."""
        last: dict[str, Any] = self._body.messages[-1]
        content = last.get("content")
        is_wanted = self._body.echo and last.get("role") == self._role
        return content if is_wanted and isinstance(content, str) else ""
