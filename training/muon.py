"""Muon: momentum whose update is orthogonalised, for the weight matrices.

Matrices of one shape are stacked and orthogonalised together by five Newton-Schulz steps
(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/). Embeddings and norms do not
belong here; AdamW takes them.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# The published coefficients of the quintic; they push singular values to about 0.7-1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Return the nearest semi-orthogonal matrices, roughly. stack: [N, rows, columns]."""
    a, b, c = QUINTIC
    x = stack.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """The optimizer's state for a set of matrices; `step` writes the parameters in place."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            self.groups[parameter.shape].append(parameter)
        self.velocity = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self.groups.items()
        }
        compile_it = next(iter(self.velocity.values())).is_cuda
        self.orthogonalise = torch.compile(orthogonalise) if compile_it else orthogonalise

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Apply one update at the given learning rate, with decoupled weight decay."""
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            velocity = self.velocity[shape].lerp_(gradient, 1 - self.momentum)
            update = self.orthogonalise(gradient.lerp(velocity, self.momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(group, 1 - rate * self.weight_decay)
            torch._foreach_add_(group, list(update.float().unbind()), alpha=-rate * scale)
