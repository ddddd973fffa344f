"""From what a body calls its prompt to token ids, bounded before it is tokenized."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wheelpit.engine.admission import estimate_tokens
from wheelpit.errors import ValidationError
from wheelpit.server.protocol import ChatRequest, GenerationFields
from wheelpit.server.service import Service

MAX_CHOICES = 16384
"""The most prompts x n of one HTTP request, as for n alone."""

INLINE_MESSAGES_CHARS = 10_000
"""Chat templates of longer conversations are rendered off the event loop."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt, ready for the engine. text: what the ids stand for, where it is known."""

    token_ids: list[int]
    text: str | None


@dataclass(frozen=True, slots=True)
class Truncation:
    """How much of a prompt to keep; None keeps all."""

    num_tokens: int | None
    side: Literal["left", "right"]

    @classmethod
    def of(cls, body: GenerationFields, max_tokens: int, max_model_len: int) -> Truncation:
        """max_tokens: the room that "as many as fit" leaves for the answer."""
        wanted = body.truncate_prompt_tokens
        if wanted == -1:
            wanted = max(1, max_model_len - max(1, max_tokens))
        return cls(wanted, body.truncation_side or "left")

    def apply(self, prompt: Prompt) -> Prompt:
        ids = prompt.token_ids
        if self.num_tokens is None or len(ids) <= self.num_tokens:
            return prompt
        first = len(ids) - self.num_tokens if self.side == "left" else 0
        return Prompt(ids[first : first + self.num_tokens], None)


def split_prompts(prompt: str | list[str | int | list[int]] | None) -> list[str | list[int]]:
    """Sort out OpenAI's four forms of `prompt` into a list of texts and lists of ids."""
    if prompt is None:
        raise ValidationError("the prompt is missing", parameter="prompt")
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise ValidationError("the prompt is an empty list", parameter="prompt")
    ids = [entry for entry in prompt if isinstance(entry, int)]
    if len(ids) == len(prompt):
        return [ids]
    if ids or len({type(entry) for entry in prompt}) > 1:
        raise ValidationError(
            "the prompt mixes texts, token ids and lists of token ids: send one kind",
            parameter="prompt",
        )
    return [entry for entry in prompt if not isinstance(entry, int)]


async def read_prompt(
    service: Service,
    prompt: str | list[int],
    truncation: Truncation,
    *,
    add_special_tokens: bool,
) -> Prompt:
    """Tokenize a text off the event loop, or check ids. ValidationError."""
    if isinstance(prompt, str):
        if truncation.num_tokens is None:
            check_chars(service, len(prompt))
        ids = await service.tokenizer.encode_async(prompt, add_special_tokens)
        read = truncation.apply(Prompt(ids, prompt))
    else:
        read = truncation.apply(Prompt(prompt, None))
    if not read.token_ids:
        raise ValidationError("The decoder prompt cannot be empty", parameter="prompt")
    return read


def check_chars(service: Service, num_chars: int, *, is_exact: bool = True) -> None:
    """Refuse a text that cannot fit, whatever its tokens, before tokenizing costs anything.

    is_exact: False if it may have more characters than that.
    """
    limit = service.model.max_model_len * service.model.max_token_chars
    if num_chars > limit:
        raise ValidationError(
            f"This model's maximum context length is {service.model.max_model_len} tokens, so at "
            f"most {limit} characters. However, your prompt has {'' if is_exact else 'at least '}"
            f"{num_chars} characters. Please reduce the length of the prompt.",
            parameter="input_text",
            value=num_chars,
        )


async def render_chat(
    service: Service,
    messages: Sequence[dict[str, Any]],
    variables: dict[str, Any],
    *,
    tools: Sequence[dict[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> str:
    """Run the chat template over a conversation. ValidationError."""
    template = service.model.chat_template(tools)

    def render() -> str:
        return template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            **variables,
        )

    if num_message_chars(messages) <= INLINE_MESSAGES_CHARS:
        return render()
    return await asyncio.to_thread(render)


def template_variables(body: ChatRequest) -> dict[str, Any]:
    """What a chat request passes on to the template; ValidationError for names it cannot set."""
    variables = dict(body.chat_template_kwargs or {})
    check_variables(variables)
    if body.documents is not None:
        variables["documents"] = body.documents
    if body.reasoning_effort is not None:
        variables["reasoning_effort"] = body.reasoning_effort
    return variables


def check_variables(variables: dict[str, Any]) -> None:
    """Raise ValidationError for template variables that have a field of their own."""
    for name in ("messages", "tools", "add_generation_prompt", "continue_final_message"):
        if name in variables:
            raise ValidationError(
                f"chat_template_kwargs cannot set {name}: use the field of that name",
                parameter="chat_template_kwargs",
            )


def check_num_choices(num_prompts: int, n: int | None) -> None:
    """Bound the work that one body can ask for."""
    num_choices = num_prompts * (n or 1)
    if num_choices > MAX_CHOICES:
        raise ValidationError(
            f"{num_prompts} prompts with n={n or 1} make {num_choices} choices, limit is "
            f"{MAX_CHOICES}: send fewer at a time",
            parameter="prompt",
        )


def estimate_prompt(prompt: str | list[int], body: GenerationFields) -> int:
    """About how many tokens a prompt has, at the price of a glance."""
    if isinstance(prompt, str):
        return bounded_estimate(len(prompt), body)
    return _bounded(len(prompt), body)


def bounded_estimate(num_chars: int, body: GenerationFields) -> int:
    """About how many tokens so many characters make, of which the body may cut off some."""
    return _bounded(estimate_tokens(num_chars), body)


def _bounded(num_tokens: int, body: GenerationFields) -> int:
    limit = body.truncate_prompt_tokens
    return max(1, num_tokens if limit is None or limit < 1 else min(num_tokens, limit))


def num_message_chars(messages: Sequence[dict[str, Any]]) -> int:
    """Roughly how much there is to render."""
    return sum(
        len(content) if isinstance(content := message.get("content"), str) else 1000
        for message in messages
    )
