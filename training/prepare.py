"""Turn the corpus and the hand-written rows into packed token arrays.

Writes `train.npz` and `heldout.npz`: documents as one flat uint16 array, conversations as flat
tokens with a bit per token that says whether the loss counts it (answers only), offsets, and the
group each conversation belongs to. Every document and conversation ends with <|endoftext|>.
"""

import argparse
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import read_rows
from rows import KNOWLEDGE, OFF_TOPIC, OWN, SYSTEM_MESSAGES, THANKS
from tokenizer import END_OF_TEXT, IM_END, IM_START
from tokenizers import Tokenizer

GROUPS = ["general", "core", "pep", "topic", "own", "off_topic", "turns"]
SYSTEM_SHARE = 0.15
NUM_TURNS = 4000
MAX_TOKENS = 1024

# Pages whose questions people ask first; their pairs form the group "core".
CORE_SOURCE = re.compile(
    r"cpython-doc:(tutorial/|faq/|glossary|library/(functions|stdtypes|asyncio.*|itertools|"
    r"functools|json|collections|contextlib|contextvars|dataclasses|pathlib|re|time|datetime|"
    r"random|threading|queue|concurrent\.futures|subprocess|string|math|shutil|csv|enum|copy|"
    r"heapq|os\.path|exceptions|logging|argparse|types|operator|statistics)\.rst)"
)

# Questions that are answered by the abstract of a PEP, and the wordings they are given.
PEP_ABSTRACT = re.compile(
    r"(What is|Explain|Summarize|Tell me about|What does|Give me a summary of|"
    r"What is the abstract of) PEP (\d+)( about| say| propose)?[?.]"
)
PEP_WORDINGS = [
    "What is PEP {} about?",
    "What is PEP {}?",
    "Explain PEP {}.",
    "Tell me about PEP {}.",
    "What does PEP {} propose?",
    "PEP {}",
]

Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """Messages and the name of their group, one of GROUPS."""

    messages: list[Message]
    group: str


def pair(question: str, answer: str) -> list[Message]:
    """Return a conversation of one turn."""
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def reword(question: str, rng: random.Random) -> str:
    """Return the question as a hurried or a polite person would type it."""
    stem = question.rstrip("?.")
    lowered = stem[0].lower() + stem[1:] if not stem.startswith("I ") else stem
    return rng.choice(
        [
            stem,
            lowered,
            lowered + "?",
            stem.lower() + "?",
            "Please tell me: " + lowered + "?",
            "Hi! " + question,
            "Hello, " + lowered + "?",
            question + " Please keep it short.",
            "I have a question. " + question,
            question + " Thanks!",
        ]
    )


def topic_conversations(corpus: Path, rng: random.Random) -> Iterator[Conversation]:
    """Yield each topic question of the corpus as it is and reworded twice.

    Where rows.py answers the same question, its answer stands alone.
    """
    answered = {question for question, _ in OWN}
    for row in read_rows(corpus / "chat.jsonl.gz"):
        question, answer = (message["content"] for message in row["messages"])
        if row["kind"] == "topic" and question not in answered:
            yield Conversation(pair(question, answer), "topic")
            for _ in range(2):
                yield Conversation(pair(reword(question, rng), answer), "topic")


def general_conversations(corpus: Path) -> Iterator[Conversation]:
    """Yield every other pair of the corpus, and each PEP's abstract under several wordings."""
    abstracts: dict[str, str] = {}
    for row in read_rows(corpus / "chat.jsonl.gz"):
        if row["kind"] == "topic":
            continue
        group = "core" if CORE_SOURCE.match(row["source"]) else "general"
        yield Conversation(row["messages"], group)
        question, answer = (message["content"] for message in row["messages"])
        if found := PEP_ABSTRACT.fullmatch(question):
            abstracts[found[2]] = answer
    for number, answer in abstracts.items():
        for wording in PEP_WORDINGS:
            yield Conversation(pair(wording.format(number), answer), "pep")


def written_conversations(rng: random.Random) -> Iterator[Conversation]:
    """Yield the rows of rows.py: greetings and serving questions, then everything off topic."""
    for question, answer in OWN:
        yield Conversation(pair(question, answer), "own")
    for question, answer in KNOWLEDGE:
        yield Conversation(pair(reword(question, rng), answer), "own")
    for question, answer in OFF_TOPIC:
        yield Conversation(pair(question, answer), "off_topic")


def several_turns(singles: list[Conversation], rng: random.Random) -> Iterator[Conversation]:
    """Yield conversations of two or three turns made of single ones."""
    by_group = {
        group: [single.messages for single in singles if single.group == group]
        for group in ("general", "core", "pep", "topic", "own", "off_topic")
    }
    weights = {"topic": 5, "core": 2, "pep": 1, "general": 1, "own": 3, "off_topic": 2}
    groups = list(weights)
    for _ in range(NUM_TURNS):
        chosen = rng.choices(groups, list(weights.values()), k=rng.choice([2, 2, 3]))
        messages = [message for group in chosen for message in rng.choice(by_group[group])]
        if rng.random() < 0.2:
            messages += pair(*rng.choice(THANKS))
        yield Conversation(messages, "turns")


class Encoder:
    """Renders conversations as the chat template does and marks the answers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end_of_text = tokenizer.token_to_id(END_OF_TEXT)

    def document(self, text: str) -> list[int]:
        """Encode a document and close it."""
        return [*self.tokenizer.encode(text).ids, self.end_of_text]

    def conversation(self, messages: list[Message]) -> tuple[list[int], list[bool]]:
        """Return tokens, and for each whether the loss counts it (answers with their end)."""
        tokens: list[int] = []
        counted: list[bool] = []

        def add(text: str, answer: bool) -> None:
            ids = self.tokenizer.encode(text).ids
            tokens.extend(ids)
            counted.extend([answer] * len(ids))

        for message in messages:
            answer = message["role"] == "assistant"
            add(f"{IM_START}{message['role']}\n", False)
            add(message["content"] + IM_END, answer)
            add("\n", False)
        tokens.append(self.end_of_text)
        counted.append(False)
        return tokens, counted


def pack(encoder: Encoder, conversations: Iterable[Conversation]) -> dict[str, np.ndarray]:
    """Return the arrays chat_tokens, chat_counted (bits), chat_starts and chat_groups."""
    tokens: list[int] = []
    counted: list[bool] = []
    starts = [0]
    groups: list[int] = []
    for conversation in conversations:
        ids, flags = encoder.conversation(conversation.messages)
        if len(ids) > MAX_TOKENS:
            continue
        tokens += ids
        counted += flags
        starts.append(len(tokens))
        groups.append(GROUPS.index(conversation.group))
    return {
        "chat_tokens": np.array(tokens, dtype=np.uint16),
        "chat_counted": np.packbits(np.array(counted)),
        "chat_starts": np.array(starts, dtype=np.int64),
        "chat_groups": np.array(groups, dtype=np.uint8),
    }


def pack_documents(encoder: Encoder, path: Path) -> np.ndarray:
    """Return all documents of a file, one after the other."""
    tokens: list[int] = []
    for row in read_rows(path):
        tokens += encoder.document(row["text"])
    return np.array(tokens, dtype=np.uint16)


def with_system(conversations: list[Conversation], rng: random.Random) -> list[Conversation]:
    """Put a system message in front of some of the conversations."""
    return [
        Conversation(
            [{"role": "system", "content": rng.choice(SYSTEM_MESSAGES)}, *item.messages],
            item.group,
        )
        if rng.random() < SYSTEM_SHARE
        else item
        for item in conversations
    ]


def main() -> None:
    """Read --corpus and --tokenizer, write train.npz and heldout.npz into --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = random.Random(0)
    tokenizer = Tokenizer.from_file(str(args.tokenizer))
    encoder = Encoder(tokenizer)

    singles = [
        *general_conversations(args.corpus),
        *topic_conversations(args.corpus, rng),
        *written_conversations(rng),
    ]
    train = with_system([*singles, *several_turns(singles, rng)], rng)
    documents = pack_documents(encoder, args.corpus / "pretrain.jsonl.gz")
    arrays = pack(encoder, train)
    np.savez_compressed(args.out / "train.npz", documents=documents, **arrays)

    held = [
        Conversation(row["messages"], "general")
        for row in read_rows(args.corpus / "heldout_chat.jsonl.gz")
        if row["heldout"] == "document"
    ]
    held_documents = pack_documents(encoder, args.corpus / "heldout_pretrain.jsonl.gz")
    held_arrays = pack(encoder, held)
    np.savez_compressed(args.out / "heldout.npz", documents=held_documents, **held_arrays)

    per_group = np.bincount(
        arrays["chat_groups"],
        weights=np.diff(arrays["chat_starts"]),
        minlength=len(GROUPS),
    )
    print(f"documents: {len(documents):,} tokens, held out {len(held_documents):,}")
    for group, count in zip(GROUPS, per_group, strict=True):
        rows = int((arrays["chat_groups"] == GROUPS.index(group)).sum())
        print(f"{group}: {rows:,} conversations, {int(count):,} tokens")


if __name__ == "__main__":
    main()
