"""Where vLLM keeps these names; a script that imports them from there finds them here."""

from wheelpit.request import Logprob, PositionLogprobs, PromptLogprobs, SampleLogprobs

__all__ = ["Logprob", "PositionLogprobs", "PromptLogprobs", "SampleLogprobs"]
