"""OutputText: the visible text of one sequence, from its token ids.

What the engine's front end keeps per sequence: an IncrementalDetokenizer and a StopChecker, and
the rules that tie them to token counts (min_tokens) and to the token a sequence ended with.
"""

from __future__ import annotations

from collections.abc import Sequence

from wheelpit.request import SamplingParams
from wheelpit.text.detokenizer import IncrementalDetokenizer
from wheelpit.text.stop import StopChecker
from wheelpit.text.tokenizer import Tokenizer


class OutputText:
    """Turn one sequence's ids into the text its caller sees. Written only by its owner."""

    __slots__ = ("_detokenizer", "_include_stop", "_num_tokens", "_num_unchecked", "_stop")

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        params: SamplingParams,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """With no tokenizer, or `detokenize=False`, the text stays empty."""
        self._detokenizer: IncrementalDetokenizer | None = None
        if tokenizer is not None and params.detokenize:
            self._detokenizer = IncrementalDetokenizer(
                tokenizer,
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
        self._include_stop = params.include_stop_str_in_output
        self._stop = StopChecker(params.stop_strings, self._include_stop)
        self._num_unchecked = params.min_tokens if params.stop else 0
        self._num_tokens = 0

    def append(
        self,
        token_ids: Sequence[int],
        is_final: bool = False,
        *,
        ends_with_stop_token: bool = False,
    ) -> tuple[str, str | None]:
        """Return the text that becomes visible, and the stop string if one was found.

        is_final: these ids are the last ones; pending and held-back text is released.
        ends_with_stop_token: the last id is the EOS or stop token, whose text is left out unless
        include_stop_str_in_output.
        Once a stop string is found, the sequence has ended: the caller aborts it.
        """
        detokenizer = self._detokenizer
        if detokenizer is None:
            return "", None
        if ends_with_stop_token and not self._include_stop:
            token_ids = token_ids[:-1]
        unchecked = ""
        if self._num_tokens < self._num_unchecked:
            num_free = self._num_unchecked - self._num_tokens
            free, token_ids = token_ids[:num_free], token_ids[num_free:]
            self._num_tokens += len(free)
            unchecked, _ = self._stop.append(detokenizer.append(free), is_checked=False)
        self._num_tokens += len(token_ids)
        text = detokenizer.append(token_ids)
        if is_final:
            text += detokenizer.finish()
        visible, matched = self._stop.append(text, is_final)
        return unchecked + visible, matched
