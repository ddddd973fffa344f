"""An offline LLM that computes nothing: it records what it gets and answers at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labkit.scripted import CompletionOutput, RequestOutput


class ScriptedLLM:
    """Has the `generate` of LLM and gives outputs with the same attributes."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.arguments = arguments
        self.settings = settings
        self.batches: list[tuple[Any, Any]] = []
        """(prompts, sampling_params) of each call of `generate`."""
        self.outputs: list[RequestOutput] = []
        """All that were given out, in order."""
        self.answers: Mapping[str, tuple[str, list[int], str]] = {}
        """Prompt -> text, token ids, finish_reason; a prompt without gets an answer of its own."""

    def generate(
        self, prompts: Any, sampling_params: Any = None, **options: Any
    ) -> list[RequestOutput]:
        """Record the batch; answer each prompt. A single prompt is a batch of one, as in LLM."""
        self.batches.append((prompts, sampling_params))
        batch = [prompts] if isinstance(prompts, str) else list(prompts)
        outputs = [self._answer(len(self.outputs) + place, one) for place, one in enumerate(batch)]
        self.outputs += outputs
        return outputs

    # What a wrong call is answered with should read like the real one's answer.
    generate.__qualname__ = "LLM.generate"

    def _answer(self, number: int, prompt: Any) -> RequestOutput:
        text, ids, reason = self.answers.get(prompt, (f"Answer to {prompt}", [7, 8, 9], "stop"))
        completion = CompletionOutput(0, text, ids, finish_reason=reason)
        return RequestOutput(str(number), prompt, [1, 2, 3], [completion], finished=True)
