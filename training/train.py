"""Train the built-in model: pretraining, then fine-tuning, each for a given number of seconds.

The learning rate follows the share of the time that has passed, so a run ends when it should on
any device. Writes Hugging Face's tensor names in float32: `pretrained.safetensors` after the
first phase, `finetuned.safetensors` after the second.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batches import (
    Corpus,
    Row,
    chat_rows,
    cut,
    document_rows,
    mixed_batches,
    prefetch,
    stack,
)
from model import IGNORE, BlockMask, Llama, ModelConfig, dense_mask, document_ids, flex_mask
from muon import Muon
from safetensors.torch import load_file, save_file
from torch import Tensor

WARMUP_STEPS = 4  # At rate zero, before the clock starts: they compile the kernels.
REPORT_EVERY = 15.0  # seconds

# Shares of the conversation tokens.
PRETRAIN_SHARES = {
    "general": 0.62,
    "core": 0.15,
    "pep": 0.06,
    "topic": 0.1,
    "own": 0.03,
    "turns": 0.04,
}
FINETUNE_SHARES = {
    "general": 0.25,
    "core": 0.16,
    "pep": 0.12,
    "topic": 0.15,
    "own": 0.12,
    "off_topic": 0.06,
    "turns": 0.14,
}


@dataclass(frozen=True)
class Phase:
    """What one phase trains on and how fast. Rates are peaks."""

    name: str
    seconds: float
    rows: int
    chat_share: float
    shares: dict[str, float]
    answers_only: bool
    matrix_rate: float
    other_rate: float
    weight_decay: float
    final_fraction: float


def rate_factor(progress: float, final_fraction: float) -> float:
    """Rise over the first 2 % of the time, then fall along a line to final_fraction."""
    rise = min(1.0, progress / 0.02)
    return rise * (1.0 - (1.0 - final_fraction) * min(1.0, progress))


class Optimizers:
    """Muon for the weight matrices, AdamW for the embedding and the norms."""

    def __init__(self, model: Llama, phase: Phase) -> None:
        self.phase = phase
        body = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        embedding = [model.model.embed_tokens.weight]
        norms = [p for p in model.parameters() if p.ndim == 1]
        self.muon = Muon(body, phase.weight_decay)
        self.adam = torch.optim.AdamW(
            [
                {"params": embedding, "weight_decay": phase.weight_decay},
                {"params": norms, "weight_decay": 0.0},
            ],
            lr=0.0,
            betas=(0.9, 0.95),
            fused=embedding[0].is_cuda,
        )

    def step(self, factor: float) -> None:
        """Apply one update at the given part of the peak rates and clear the gradients."""
        for group in self.adam.param_groups:
            group["lr"] = factor * self.phase.other_rate
        self.adam.step()
        self.muon.step(factor * self.phase.matrix_rate)
        self.adam.zero_grad()
        for parameters in self.muon.groups.values():
            for parameter in parameters:
                parameter.grad = None


def fill_up(held: list[Row], rows: int) -> list[Row]:
    """Return exactly `rows` rows, empty ones added, so that one compiled shape serves all."""
    inputs, targets = held[0]
    empty = (inputs, np.full_like(targets, IGNORE))
    return [*held, *[empty] * rows][:rows]


class Trainer:
    """Owns the model, its compiled loss and the held-out rows."""

    def __init__(self, model: Llama, heldout: Corpus, rows: int, attention: str) -> None:
        self.model = model
        self.device = model.model.embed_tokens.weight.device
        self.loss = torch.compile(model.loss) if self.device.type == "cuda" else model.loss
        self.make_mask: Callable[[Tensor], BlockMask | Tensor] = (
            flex_mask if attention == "flex" else dense_mask
        )
        self.end_of_text = heldout.end_of_text
        context = model.config.context
        rng = np.random.default_rng(0)
        everything = dict.fromkeys(["general"], 1.0)
        chat = chat_rows(heldout, context, everything, True, rng)
        num_chat = max(1, len(heldout.chat_tokens) // context)
        documents = list(cut(heldout.documents, context, self.end_of_text))
        self.heldout = {
            "documents": stack(fill_up(documents, rows)),
            "answers": stack(fill_up([next(chat) for _ in range(num_chat)], rows)),
        }

    def batch_loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch under bf16 autocast."""
        mask = self.make_mask(document_ids(inputs, self.end_of_text))
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.loss(inputs, targets, mask)

    @torch.no_grad()
    def evaluate(self) -> str:
        """Return the held-out losses in nats a token, as text."""
        self.model.eval()
        parts = []
        for name, (inputs, targets) in self.heldout.items():
            loss = self.batch_loss(inputs.to(self.device), targets.to(self.device))
            parts.append(f"held-out {name} {loss.item():.4f}")
        self.model.train()
        return "  ".join(parts)

    def run(self, phase: Phase, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        """Train for phase.seconds after warming up."""
        optimizers = Optimizers(self.model, phase)
        self.model.train()
        for _ in range(WARMUP_STEPS):
            self.batch_loss(*next(batches)).backward()
            optimizers.step(0.0)
        optimizers = Optimizers(self.model, phase)
        print(f"{phase.name}: start  {self.evaluate()}")
        started = reported = time.monotonic()
        steps = 0
        while (elapsed := time.monotonic() - started) < phase.seconds:
            loss = self.batch_loss(*next(batches))
            loss.backward()
            optimizers.step(rate_factor(elapsed / phase.seconds, phase.final_fraction))
            steps += 1
            if steps % 8 == 0:
                value = loss.item()  # Also keeps the host within eight steps of the device.
                if time.monotonic() - reported > REPORT_EVERY:
                    reported = time.monotonic()
                    tokens = steps * phase.rows * self.model.config.context
                    print(
                        f"{phase.name}: {elapsed:.0f} s  step {steps}  {tokens / 1e6:.0f} M tokens"
                        f"  train {value:.4f}  {self.evaluate()}"
                    )
        tokens = steps * phase.rows * self.model.config.context
        print(f"{phase.name}: {steps} steps, {tokens / 1e6:.0f} M tokens  {self.evaluate()}")


def save(model: Llama, path: Path) -> None:
    """Write the parameters in float32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, str(path), metadata={"format": "pt"})
    print(f"saved {path}")


def train_phase(trainer: Trainer, corpus: Corpus, phase: Phase, seed: int) -> None:
    """Run one phase on its own mixture."""
    context = trainer.model.config.context
    rng = np.random.default_rng(seed)
    documents = document_rows(corpus, context, np.random.default_rng(seed + 1))
    chat = chat_rows(corpus, context, phase.shares, phase.answers_only, rng)
    batches = mixed_batches(documents, chat, phase.rows, phase.chat_share)
    trainer.run(phase, prefetch(batches, lambda t: t.to(trainer.device, non_blocking=True)))


def parse_arguments() -> argparse.Namespace:
    """Read the command line; the defaults are those of the shipped model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, help="skip pretraining, start from this file")
    parser.add_argument("--pretrain-seconds", type=float, default=390.0)
    parser.add_argument("--finetune-seconds", type=float, default=130.0)
    parser.add_argument("--rows", type=int, default=64, help="rows of a batch")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--weight-decay", type=float, default=0.6)
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--other-rate", type=float, default=3e-3)
    parser.add_argument("--finetune-rate", type=float, default=0.15, help="part of the peak rate")
    parser.add_argument("--finetune-chat", type=float, default=0.6, help="share of chat rows")
    parser.add_argument("--attention", choices=["flex", "dense"], default="flex")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def phases(args: argparse.Namespace) -> tuple[Phase, Phase]:
    """Return pretraining and fine-tuning as the command line wants them."""
    pretrain = Phase(
        name="pretrain",
        seconds=args.pretrain_seconds,
        rows=args.rows,
        chat_share=0.25,
        shares=PRETRAIN_SHARES,
        answers_only=False,
        matrix_rate=args.matrix_rate,
        other_rate=args.other_rate,
        weight_decay=args.weight_decay,
        final_fraction=0.05,
    )
    finetune = Phase(
        name="finetune",
        seconds=args.finetune_seconds,
        rows=args.rows,
        chat_share=args.finetune_chat,
        shares=FINETUNE_SHARES,
        answers_only=True,
        matrix_rate=args.matrix_rate * args.finetune_rate,
        other_rate=args.other_rate * args.finetune_rate,
        weight_decay=args.weight_decay,
        final_fraction=0.0,
    )
    return pretrain, finetune


def main() -> None:
    """Run both phases, or only the second with --init."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    corpus = Corpus.load(args.data / "train.npz")
    config = ModelConfig(context=args.context, num_layers=args.layers, dropout=args.dropout)
    model = Llama(config).to(args.device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters  {vars(args)}")
    trainer = Trainer(model, Corpus.load(args.data / "heldout.npz"), args.rows, args.attention)
    pretrain, finetune = phases(args)
    if args.init:
        model.load_state_dict(load_file(str(args.init)))
    else:
        train_phase(trainer, corpus, pretrain, args.seed)
        save(model, args.out / "pretrained.safetensors")
    train_phase(trainer, corpus, finetune, args.seed + 100)
    save(model, args.out / "finetuned.safetensors")


if __name__ == "__main__":
    main()
