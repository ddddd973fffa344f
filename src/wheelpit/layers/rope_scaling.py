"""How rotary positions are stretched. No torch: the front end reads it from config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the length the model was first trained on.

    "linear" divides every frequency by `factor`. "llama3" divides the slow ones, keeps the fast
    ones and blends between: Llama 3.1's rule.
    """

    kind: Literal["linear", "llama3"]
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
