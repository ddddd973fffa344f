"""Measure an exported model on the held-out documents: nats a token and nats a byte.

Needs transformers. Each document is cut into windows of the model's context that do not
overlap; the first token of a window is not predicted, and its bytes are not counted.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from corpus import read_rows
from transformers import AutoModelForCausalLM, AutoTokenizer


@torch.inference_mode()
def measure(folder: Path, documents: list[str]) -> tuple[float, int, int]:
    """Return the sum of nats, and the numbers of tokens and bytes predicted."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    context = model.config.max_position_embeddings
    nats, tokens, num_bytes = 0.0, 0, 0
    for text in documents:
        ids = tokenizer(text, return_tensors="pt").input_ids[0]
        for window in ids.split(context):
            logits = model(window[None]).logits[0, :-1]
            nats += F.cross_entropy(logits, window[1:], reduction="sum").item()
            tokens += len(window) - 1
            num_bytes += len(tokenizer.decode(window[1:]).encode())
    return nats, tokens, num_bytes


def main() -> None:
    """Print the figures of --model on --corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    args = parser.parse_args()
    documents = [row["text"] for row in read_rows(args.corpus / "heldout_pretrain.jsonl.gz")]
    nats, tokens, num_bytes = measure(args.model, documents)
    print(
        f"{len(documents)} documents, {tokens:,} tokens, {num_bytes:,} bytes: "
        f"{nats / tokens:.3f} nats a token, {nats / num_bytes:.3f} nats a byte"
    )


if __name__ == "__main__":
    main()
