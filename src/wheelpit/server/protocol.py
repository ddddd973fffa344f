"""The bodies that clients send, decoded straight from the bytes.

Fields that this server cannot honour are declared, too, so that `unsupported.py` can refuse them
by name; fields that nobody declared are ignored, as OpenAI's clients send new ones all the time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""JSON's integers have no end, the engine's have."""


class StreamOptions(msgspec.Struct, kw_only=True, frozen=True):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    """End with a chunk that has the usage and no choices."""
    continuous_usage_stats: bool | None = None
    """Put the usage so far on every chunk."""


class GenerationFields(msgspec.Struct, kw_only=True, frozen=True):
    """What completions and chat have in common; None means the model's or OpenAI's default."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Int64 | None = None
    max_tokens: Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    user: str | None = None

    # vLLM's extensions
    top_k: Int64 | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: Int64 | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] | None = None
    """Keep this many tokens of the prompt; -1 keeps as many as fit."""
    truncation_side: Literal["left", "right"] | None = None
    """Which end is cut off; left unless given."""
    allowed_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    prompt_logprobs: Int64 | None = None
    priority: Int64 = 0
    request_id: str | None = None
    """The id, unless the X-Request-Id header gives one."""
    timeout: float | None = None
    """Seconds from its arrival until it ends, with what there is by then."""
    queue_timeout: float | None = None
    """Likewise until it must have started."""
    ttft_timeout: float | None = None
    """Likewise until it must have its first token."""
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    cache_salt: str | None = None

    # Refused unless they have their default
    use_beam_search: Any = None
    length_penalty: Any = None
    best_of: Any = None
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    guided_json_object: Any = None
    kv_transfer_params: Any = None
    vllm_xargs: Any = None
    repetition_detection: Any = None
    thinking_token_budget: Any = None
    logprob_token_ids: Any = None


class CompletionRequest(GenerationFields, kw_only=True, frozen=True):
    """The body of POST /v1/completions."""

    prompt: str | list[str | int | list[int]] | None = None
    """Text, token ids, or a list of either."""
    echo: bool | None = None
    """Repeat the prompt before its completion."""
    logprobs: Int64 | None = None
    add_special_tokens: bool = True

    prompt_embeds: Any = None
    suffix: Any = None


class ChatRequest(GenerationFields, kw_only=True, frozen=True):
    """The body of POST /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: Int64 | None = None
    logprobs: bool | None = None
    top_logprobs: Int64 | None = None
    echo: bool | None = None
    """Begin with the last message's content, if it is of the role that answers."""
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    """Let the tokenizer add its own special tokens to those of the chat template."""
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    reasoning_effort: str | None = None
    """Passed to the chat template, as documents are."""
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None

    chat_template: Any = None
    media_io_kwargs: Any = None
    mm_processor_kwargs: Any = None
    return_prompt_text: Any = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None
    web_search_options: Any = None


class TokenizeRequest(msgspec.Struct, kw_only=True, frozen=True):
    """The body of POST /tokenize: a prompt, or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    """Default: True for a prompt, False for messages."""
    return_token_strs: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None


class DetokenizeRequest(msgspec.Struct, kw_only=True, frozen=True):
    """The body of POST /detokenize."""

    tokens: list[Annotated[int, msgspec.Meta(ge=0)]]
    model: str | None = None
