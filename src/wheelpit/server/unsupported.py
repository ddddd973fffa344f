"""Refuse what this server cannot do, by name, rather than ignore it."""

from __future__ import annotations

from wheelpit.errors import ValidationError
from wheelpit.server.protocol import ChatRequest, CompletionRequest, GenerationFields

HARMLESS: dict[str, tuple[object, ...]] = {
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "best_of": (1,),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json_object": (False,),
    "kv_transfer_params": (),
    "vllm_xargs": (),
    "repetition_detection": (),
    "thinking_token_budget": (-1,),
    "logprob_token_ids": (),
}
"""Fields of both routes that are refused, but for null, {}, [] and "", and for these values."""

HARMLESS_COMPLETION: dict[str, tuple[object, ...]] = {"prompt_embeds": (), "suffix": ()}

HARMLESS_CHAT: dict[str, tuple[object, ...]] = {
    "chat_template": (),
    "media_io_kwargs": (),
    "mm_processor_kwargs": (),
    "return_prompt_text": (False,),
    "functions": (),
    "function_call": ("none", "auto"),
    "audio": (),
    "web_search_options": (),
}

EMPTY: tuple[object, ...] = (None, {}, [], "")


def check_completion(body: CompletionRequest) -> None:
    """Raise ValidationError for the first field set to something unsupported or contradictory."""
    _refuse(body, {**HARMLESS, **HARMLESS_COMPLETION})
    _check_stream(body)


def check_chat(body: ChatRequest) -> None:
    """Raise ValidationError for the first field set to something unsupported or contradictory."""
    _refuse(body, {**HARMLESS, **HARMLESS_CHAT})
    _check_stream(body)
    if body.tools and body.tool_choice != "none":
        raise ValidationError(
            "tools are not supported: this server does not parse tool calls; send tool_choice "
            '"none" to have them described to the model only',
            parameter="tools",
        )
    if body.tool_choice not in (None, "none", "auto"):
        raise ValidationError(
            "this tool_choice is not supported: leave it out or send none",
            parameter="tool_choice",
        )
    if body.top_logprobs is not None and not body.logprobs:
        raise ValidationError("top_logprobs needs logprobs to be true", parameter="top_logprobs")
    if body.add_generation_prompt and body.continue_final_message:
        raise ValidationError(
            "add_generation_prompt and continue_final_message exclude each other: set "
            "add_generation_prompt to false",
            parameter="continue_final_message",
        )


def _refuse(body: GenerationFields, harmless: dict[str, tuple[object, ...]]) -> None:
    for name, values in harmless.items():
        value = getattr(body, name)
        if value not in EMPTY and value not in values:
            raise ValidationError(
                f"{name} is not supported by this server: leave it out", parameter=name
            )


def _check_stream(body: GenerationFields) -> None:
    if body.stream_options is not None and not body.stream:
        raise ValidationError("stream_options needs stream to be true", parameter="stream_options")
    if body.prompt_logprobs is not None and body.stream:
        raise ValidationError(
            "prompt_logprobs are not available in a stream: set stream to false",
            parameter="prompt_logprobs",
        )
