"""From a body's fields to `SamplingParams`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wheelpit.errors import ValidationError
from wheelpit.request import RequestOutputKind, SamplingParams
from wheelpit.server.protocol import GenerationFields

MODEL_DEFAULTS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Fields whose default the model's authors may set."""


def sampling_params(
    body: GenerationFields,
    defaults: Mapping[str, Any],
    *,
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    """Build and check the parameters; ValidationError names what is out of range.

    defaults: the model's. The output kind fits the body's `stream`.
    """
    chosen = {
        name: defaults.get(name) if getattr(body, name) is None else getattr(body, name)
        for name in MODEL_DEFAULTS
    }
    return SamplingParams.from_optional(
        **chosen,
        n=body.n,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        seed=body.seed,
        stop=body.stop,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        skip_special_tokens=body.skip_special_tokens,
        spaces_between_special_tokens=body.spaces_between_special_tokens,
        include_stop_str_in_output=body.include_stop_str_in_output,
        logit_bias=body.logit_bias,
        allowed_token_ids=body.allowed_token_ids,
        bad_words=body.bad_words,
        output_kind=RequestOutputKind.DELTA if body.stream else RequestOutputKind.FINAL_ONLY,
    )


def fit_max_tokens(
    asked: int | None, default: int | None, num_prompt_tokens: int, max_model_len: int
) -> int:
    """How many tokens to generate at most: what was asked, if there is room, or else what fits.

    default: used when nothing was asked; None means the rest of the context.
    """
    room = max_model_len - num_prompt_tokens
    wanted = 1 if asked is None else asked
    if wanted > room:
        raise ValidationError(
            f"This model's maximum context length is {max_model_len} tokens. However, you "
            f"requested {num_prompt_tokens + wanted} tokens ({num_prompt_tokens} in the prompt, "
            f"{wanted} for the answer). Please reduce the length of the prompt or max_tokens.",
            parameter="input_tokens" if room < 1 else "max_tokens",
            value=num_prompt_tokens if room < 1 else wanted,
        )
    if asked is not None:
        return asked
    return room if default is None else min(default, room)
