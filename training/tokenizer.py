"""Train the built-in model's tokenizer: a byte-level BPE of 8,192 entries.

Owns the split pattern, the special tokens and the chat template. Every byte is in the
alphabet, so any text round-trips; digits are split in runs of at most three.
"""

import argparse
import random
import re
from collections.abc import Iterator
from pathlib import Path

from corpus import read_rows
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 8192
END_OF_TEXT = "<|endoftext|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
PAD = "<|pad|>"
SPECIAL_TOKENS = [END_OF_TEXT, IM_START, IM_END, PAD]

# Words with one leading mark or space, digits by three, punctuation runs, then white space.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

PEP_NUMBER = re.compile(r"(?<=PEP )\d+")
PEP_WEIGHT = 60

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def texts(corpus: Path, seed: int) -> Iterator[str]:
    """Yield every document, and a third of the chat so that questions are covered too.

    Numbers of PEPs count many times more: one token each makes them far easier to remember.
    """
    for row in read_rows(corpus / "pretrain.jsonl.gz"):
        yield row["text"]
        yield from PEP_NUMBER.findall(row["text"]) * PEP_WEIGHT
    rng = random.Random(seed)
    for row in read_rows(corpus / "chat.jsonl.gz"):
        if rng.random() < 1 / 3:
            yield from (message["content"] for message in row["messages"])


def train(corpus: Path, seed: int = 0) -> Tokenizer:
    """Return a tokenizer trained on the corpus; the same corpus gives the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(corpus, seed), trainer)
    return tokenizer


def main() -> None:
    """Train on --corpus and write --out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="tokenizer.json to write")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokenizer = train(args.corpus)
    tokenizer.save(str(args.out))
    print(f"{tokenizer.get_vocab_size()} entries -> {args.out}")


if __name__ == "__main__":
    main()
