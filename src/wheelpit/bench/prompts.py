"""Prompts of an asked length in tokens, all different from their first token on.

Three ways, best first: token ids drawn from a pool that the server's own tokenizer gave; text cut
to length with the model's tokenizer file; text whose number of words was calibrated against the
usage that the server reports. Only the last is approximate; the report prints the lengths that the
server counted in any case.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wheelpit.bench.workload import Prompt
from wheelpit.errors import ConfigError

_COMMON_WORDS = """
the of and to in a is that it was for on are as with his they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up out
them then she many some so these would other into has more her two like him see time could no make
than first been its who now people my made over did down only way find use may water long little
very after words called just where most know get through back much before go good new write our
used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again off
went old number great tell men say small every found still between name should home big give air
line set own under read last never us left end along while might next sound below saw something
thought both few those always looked show large often together asked house world going want school
important until form food keep children feet land side without boy once animals life enough took
sometimes four head above kind began almost live page got earth need far hand high year mother
light parts country father let night following picture being study second eyes soon times story
boys since white days ever paper hard near sentence better best across during today others however
sure means knew try told young miles sun ways thing whole hear example heard several change answer
room sea against top turned learn point city play toward five using himself usually
"""
WORDS = tuple(_COMMON_WORDS.split())


class PromptWriter(Protocol):
    """Writes prompt number `index` of `num_tokens` tokens."""

    def __call__(self, index: int, num_tokens: int) -> Prompt:
        """Return the prompt; the same arguments give the same prompt."""
        ...


@dataclass(frozen=True, slots=True)
class WordCost:
    """How many tokens a server counts for a text: fixed ones, then some for every word."""

    overhead_tokens: float
    tokens_per_word: float

    @classmethod
    def fit(cls, probes: Sequence[tuple[int, int]]) -> "WordCost":
        """Draw the line through two (words, tokens) probes."""
        (words_a, tokens_a), (words_b, tokens_b) = probes
        tokens_per_word = (tokens_b - tokens_a) / (words_b - words_a)
        if tokens_per_word <= 0:
            raise ConfigError(
                f"server counts {tokens_a} tokens for {words_a} words and {tokens_b} for "
                f"{words_b}: give --tokenizer, prompt lengths cannot be calibrated"
            )
        return cls(tokens_a - tokens_per_word * words_a, tokens_per_word)

    def num_words(self, num_tokens: int) -> int:
        """Return how many words come closest to `num_tokens`, at least one."""
        return max(1, round((num_tokens - self.overhead_tokens) / self.tokens_per_word))


def ids_from_pool(pool: Sequence[int], seed: int) -> PromptWriter:
    """Write prompts as token ids; the first ids cycle through the shuffled pool."""
    first_ids = list(pool)
    random.Random(f"{seed}/first").shuffle(first_ids)

    def write(index: int, num_tokens: int) -> list[int]:
        rng = random.Random(f"{seed}/prompt/{index}")
        first = first_ids[index % len(first_ids)]
        return [first, *rng.choices(pool, k=num_tokens - 1)]

    return write


def text_by_words(cost: WordCost, seed: int) -> PromptWriter:
    """Write prompts as text of about the asked length."""
    first_words = _shuffled_words(seed)

    def write(index: int, num_tokens: int) -> str:
        rng = random.Random(f"{seed}/prompt/{index}")
        num_words = cost.num_words(num_tokens)
        return " ".join(
            [first_words[index % len(first_words)], *rng.choices(WORDS, k=num_words - 1)]
        )

    return write


def text_by_tokenizer(count_tokens: Callable[[str], int], seed: int) -> PromptWriter:
    """Write prompts as text of exactly the asked length, as `count_tokens` counts it."""
    first_words = _shuffled_words(seed)

    def write(index: int, num_tokens: int) -> str:
        rng = random.Random(f"{seed}/prompt/{index}")
        words = [first_words[index % len(first_words)]]
        # A word of several tokens may overshoot: drop it and draw another. Words of one token exist
        # in every tokenizer of natural language.
        for _ in range(100 * num_tokens):
            missing = num_tokens - count_tokens(" ".join(words))
            if missing == 0:
                return " ".join(words)
            if missing > 0:
                words += rng.choices(WORDS, k=max(1, missing // 3))
            elif len(words) > 1:
                words.pop()
            else:
                words = [rng.choice(WORDS)]
        raise ConfigError(f"no text of exactly {num_tokens} tokens found with this tokenizer")

    return write


def _shuffled_words(seed: int) -> list[str]:
    words = list(WORDS)
    random.Random(f"{seed}/first").shuffle(words)
    return words
