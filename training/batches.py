"""Make batches of packed rows, forever, from the arrays that prepare.py wrote.

A row is `context` tokens of whole documents or conversations one after the other; targets are the
next tokens, or IGNORE where the loss does not count. Owns the mixing: which share of the rows is
documents, and which share of the conversation tokens comes from each group.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from model import IGNORE
from prepare import GROUPS
from torch import Tensor

Row = tuple[np.ndarray, np.ndarray]  # inputs and targets, both [context] int64


@dataclass(frozen=True)
class Corpus:
    """The arrays of one file. counted: one boolean a token of chat_tokens."""

    documents: np.ndarray
    chat_tokens: np.ndarray
    chat_starts: np.ndarray
    chat_groups: np.ndarray
    counted: np.ndarray
    end_of_text: int

    @classmethod
    def load(cls, path: Path) -> "Corpus":
        """Read train.npz or heldout.npz."""
        arrays = np.load(path)
        documents = arrays["documents"]
        tokens = arrays["chat_tokens"]
        return cls(
            documents=documents,
            chat_tokens=tokens,
            chat_starts=arrays["chat_starts"],
            chat_groups=arrays["chat_groups"],
            counted=np.unpackbits(arrays["chat_counted"], count=len(tokens)).astype(bool),
            end_of_text=int(documents[-1]),
        )


def shift(tokens: np.ndarray, counted: np.ndarray, end_of_text: int) -> Row:
    """Turn context + 1 tokens into inputs and targets; nothing is predicted across documents."""
    inputs, targets = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
    targets = np.where(counted[1:] & (inputs != end_of_text), targets, IGNORE)
    return inputs, targets


def cut(tokens: np.ndarray, context: int, end_of_text: int) -> Iterator[Row]:
    """Yield a flat stream as full rows; the rest that does not fill a row is dropped."""
    everything = np.ones(context + 1, dtype=bool)
    for start in range(0, len(tokens) - context, context):
        yield shift(tokens[start : start + context + 1], everything, end_of_text)


def document_rows(corpus: Corpus, context: int, rng: np.random.Generator) -> Iterator[Row]:
    """Yield documents in a new order each epoch, cut at any token."""
    ends = np.flatnonzero(corpus.documents == corpus.end_of_text) + 1
    pieces = np.split(corpus.documents, ends[:-1])
    while True:
        order = rng.permutation(len(pieces))
        stream = np.concatenate([pieces[index] for index in order])
        yield from cut(stream[rng.integers(context) :], context, corpus.end_of_text)


def group_members(
    corpus: Corpus, group: str, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a group's conversations, tokens and counted, in a new order each epoch."""
    members = np.flatnonzero(corpus.chat_groups == GROUPS.index(group))
    while True:
        for index in rng.permutation(members):
            span = slice(corpus.chat_starts[index], corpus.chat_starts[index + 1])
            yield corpus.chat_tokens[span], corpus.counted[span]


def chat_rows(
    corpus: Corpus,
    context: int,
    shares: dict[str, float],
    answers_only: bool,
    rng: np.random.Generator,
) -> Iterator[Row]:
    """Yield rows of whole conversations; the group furthest below its share comes next."""
    sources = {group: group_members(corpus, group, rng) for group in shares}
    taken = dict.fromkeys(shares, 0)
    row = np.full(context + 1, corpus.end_of_text, dtype=np.uint16)
    counted = np.zeros(context + 1, dtype=bool)
    filled = 0
    while True:
        group = min(shares, key=lambda name: taken[name] / shares[name])
        tokens, flags = next(sources[group])
        taken[group] += len(tokens)
        if filled + len(tokens) > context + 1:
            yield shift(row, counted, corpus.end_of_text)
            row = np.full_like(row, corpus.end_of_text)
            counted = np.zeros_like(counted)
            filled = 0
        row[filled : filled + len(tokens)] = tokens
        counted[filled : filled + len(tokens)] = flags if answers_only else True
        filled += len(tokens)


def stack(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of a batch, [rows, context] int64 each."""
    inputs, targets = zip(*rows, strict=True)
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(targets))


def mixed_batches(
    documents: Iterator[Row], chat: Iterator[Row], rows: int, chat_share: float
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of which the given share of rows is chat."""
    num_chat = round(rows * chat_share)
    while True:
        batch = [next(chat) for _ in range(num_chat)]
        batch += [next(documents) for _ in range(rows - num_chat)]
        yield stack(batch)


def prefetch(
    batches: Iterator[tuple[Tensor, Tensor]],
    move: Callable[[Tensor], Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Make batches in a daemon thread, eight ahead, and move them to the device."""
    ready: queue.Queue[tuple[Tensor, Tensor]] = queue.Queue(maxsize=8)

    def fill() -> None:
        for batch in batches:
            ready.put(batch)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        inputs, targets = ready.get()
        yield move(inputs), move(targets)
