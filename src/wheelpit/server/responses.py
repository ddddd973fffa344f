"""The bodies of whole answers. Unset fields of vLLM's are null, as its clients expect."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.responses import Response

from wheelpit.request import PromptLogprobs, RequestOutput
from wheelpit.server.logprobs import ChatLogprobs, CompletionLogprobs, wire_logprob


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int


class Usage(msgspec.Struct):
    """Tokens of a request; with several prompts or choices, of all together."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None

    @classmethod
    def of(cls, finals: list[RequestOutput], num_completion_tokens: int | None = None) -> Usage:
        """num_completion_tokens: where it is not the number of tokens in the outputs."""
        num_prompt = sum(len(final.prompt_token_ids or ()) for final in finals)
        if num_completion_tokens is None:
            num_completion_tokens = sum(
                len(completion.token_ids) for final in finals for completion in final.outputs
            )
        num_cached = sum(final.num_cached_tokens or 0 for final in finals)
        return cls(
            num_prompt,
            num_prompt + num_completion_tokens,
            num_completion_tokens,
            PromptTokensDetails(num_cached),
        )


PromptLogprobsBody = list[dict[int, dict[str, Any]] | None]


class CompletionChoice(msgspec.Struct, kw_only=True):
    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobsBody | None = None
    prompt_token_ids: list[int] | None = None


class CompletionAnswer(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/completions."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage
    kv_transfer_params: dict[str, Any] | None = None


class ChatMessage(msgspec.Struct, kw_only=True):
    role: str
    content: str | None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] = []
    reasoning: str | None = None


class ChatChoice(msgspec.Struct, kw_only=True):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    token_ids: list[int] | None = None


class ChatAnswer(msgspec.Struct, kw_only=True):
    """The answer of POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: Usage
    prompt_logprobs: PromptLogprobsBody | None = None
    prompt_token_ids: list[int] | None = None
    kv_transfer_params: dict[str, Any] | None = None


class TokenizeAnswer(msgspec.Struct, kw_only=True):
    """The answer of POST /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeAnswer(msgspec.Struct):
    """The answer of POST /detokenize."""

    prompt: str


class ErrorDetail(msgspec.Struct, kw_only=True):
    """reason: why a request was refused, or ended. estimate_s: the wait that it would have had."""

    message: str
    type: str
    param: str | None
    code: int
    reason: str | msgspec.UnsetType = msgspec.UNSET
    estimate_s: float | msgspec.UnsetType | None = msgspec.UNSET


class ErrorAnswer(msgspec.Struct):
    """The answer of every route to what it cannot do."""

    error: ErrorDetail


class CancelAnswer(msgspec.Struct, kw_only=True):
    """The answer to a cancellation. num_cancelled: more than 1 if they have one id."""

    id: str
    object: Literal["request"] = "request"
    status: Literal["cancelled"] = "cancelled"
    num_cancelled: int


def json_response(body: object) -> Response:
    """200 with a struct (or anything else msgspec can encode) as JSON."""
    return Response(msgspec.json.encode(body), media_type="application/json")


def prompt_logprobs_body(given: PromptLogprobs | None) -> PromptLogprobsBody | None:
    """vLLM's shape: one object of token id -> entry for each position, null for the first."""
    if given is None:
        return None
    return [
        None
        if position is None
        else {
            token_id: {
                "logprob": wire_logprob(entry.logprob),
                "rank": entry.rank,
                "decoded_token": entry.decoded_token,
            }
            for token_id, entry in position.items()
        }
        for position in given
    ]
