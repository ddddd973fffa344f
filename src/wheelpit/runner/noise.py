"""The noise of random draws: a pure function of (seed, position, token id).

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox is a keyed hash of a
counter. A request's noise so depends neither on its batch neighbours nor on preemption, restarts
or the number of steps it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_WORD = 2**64 - 1


class GumbelNoise:
    """Draws from the standard Gumbel distribution, one per row and token.

    Holds one generator only because building one costs more than a row of its output; each row
    sets its whole state.
    """

    def __init__(self) -> None:
        self._philox = np.random.Philox(key=0)

    def __call__(
        self,
        seeds: Sequence[int],
        positions: Sequence[int],
        vocab_size: int,
        token_ids: NDArray[np.int64] | None = None,
    ) -> Tensor:
        """Return [B, V] float32 on the CPU; row b depends on seeds[b] and positions[b] alone.

        token_ids: [B, C], return the noise of these tokens only, [B, C]. Token id t takes the t-th
        32-bit word of the stream of key (seed, 0), counter (0, position).
        """
        num_words = -(-vocab_size // 2)
        bits = np.empty((len(seeds), num_words), dtype=np.uint64)
        for row, (seed, position) in enumerate(zip(seeds, positions, strict=True)):
            self._philox.state = _state(seed, position)
            bits[row] = self._philox.random_raw(num_words)
        words = bits.view(np.uint32)[:, :vocab_size]
        if token_ids is not None:
            words = np.take_along_axis(words, token_ids, axis=1)
        # -log(-log1p(-u)), u in (0, 1]: the small values that decide a draw keep all their bits,
        # and u = 1 becomes -inf, a token never drawn.
        uniform = torch.from_numpy(words.astype(np.float32)).add_(0.5).mul_(-(2.0**-32))
        return uniform.log1p_().neg_().log_().neg_()


def _state(seed: int, position: int) -> Any:
    key: NDArray[np.uint64] = np.array([seed & _WORD, 0], dtype=np.uint64)
    counter: NDArray[np.uint64] = np.array([0, position, 0, 0], dtype=np.uint64)
    return {
        "bit_generator": "Philox",
        "state": {"counter": counter, "key": key},
        "buffer": np.zeros(4, dtype=np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
