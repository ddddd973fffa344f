"""A Llama-architecture language model for training, with Hugging Face's parameter names.

Rows are packed: several documents follow each other in one row, and a token attends only to
earlier tokens of its own document. The state dict is what ends up in the safetensors file.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

IGNORE = -100


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model; the defaults are the built-in model's."""

    vocab_size: int = 8192
    hidden_size: int = 384
    num_layers: int = 12
    num_heads: int = 6
    num_kv_heads: int = 3
    head_dim: int = 64
    mlp_size: int = 1024
    context: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    dropout: float = 0.1


class RMSNorm(nn.Module):
    """Scale by the reciprocal root mean square, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., size]; returns x's dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * self.weight).to(x.dtype)


def rotary_tables(config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, [context, head_dim], halves repeated (rotate-half layout)."""
    half = torch.arange(0, config.head_dim, 2, device=device, dtype=torch.float32)
    frequencies = config.rope_theta ** (-half / config.head_dim)
    angles = torch.outer(torch.arange(config.context, device=device).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys by their position. x: [B, H, T, D]; cos, sin: [T, D]."""
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x.dtype)


class Attention(nn.Module):
    """Grouped-query self-attention within documents."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query = config.num_heads * config.head_dim
        key = config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        """x: [B, T, hidden]. A BlockMask takes the flex kernel, a boolean [B, 1, T, T] sdpa."""
        batch, length, _ = x.shape
        split = (batch, length, -1, self.head_dim)
        q = rotate(self.q_proj(x).view(split).transpose(1, 2), cos, sin)  # [B, H, T, D]
        k = rotate(self.k_proj(x).view(split).transpose(1, 2), cos, sin)  # [B, K, T, D]
        v = self.v_proj(x).view(split).transpose(1, 2)
        if isinstance(mask, BlockMask):
            out = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    """The gated feed-forward layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.mlp_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.mlp_size, bias=False)
        self.down_proj = nn.Linear(config.mlp_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, T, hidden]."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and MLP, each normed before and dropped out after."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.dropout = config.dropout

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: BlockMask | Tensor) -> Tensor:
        """x: [B, T, hidden]."""
        attended = self.self_attn(self.input_layernorm(x), cos, sin, mask)
        x = x + F.dropout(attended, self.dropout, self.training)
        fed = self.mlp(self.post_attention_layernorm(x))
        return x + F.dropout(fed, self.dropout, self.training)


class Body(nn.Module):
    """Everything between token ids and the tied head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)


class Llama(nn.Module):
    """The language model; its head is the embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.residual_dtype = torch.bfloat16  # As it will be when the model is served.
        depth = (2 * config.num_layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                closing = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 * (depth if closing else 1.0))

    def forward(self, ids: Tensor, mask: BlockMask | Tensor) -> Tensor:
        """ids: [B, T] int64; returns logits [B, T, vocab]."""
        cos, sin = rotary_tables(self.config, ids.device)
        length = ids.shape[1]
        x = self.model.embed_tokens(ids).to(self.residual_dtype)
        x = F.dropout(x, self.config.dropout, self.training)
        for layer in self.model.layers:
            x = layer(x, cos[:length], sin[:length], mask)
        return F.linear(self.model.norm(x), self.model.embed_tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor, mask: BlockMask | Tensor) -> Tensor:
        """Return the mean negative log-likelihood (nats) of the targets that are not IGNORE."""
        logits = self(ids, mask).float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE)


def document_ids(ids: Tensor, end_of_text: int) -> Tensor:
    """Number the documents of each row; an end-of-text token closes its own document."""
    ends = (ids == end_of_text).int()
    return ends.cumsum(dim=1, dtype=torch.int32) - ends


def flex_mask(documents: Tensor) -> BlockMask:
    """The document-causal mask for the flex kernel. documents: [B, T] int32."""

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q >= k) & (documents[b, q] == documents[b, k])

    batch, length = documents.shape
    return create_block_mask(visible, batch, None, length, length, device=documents.device)


def dense_mask(documents: Tensor) -> Tensor:
    """The same mask as booleans [B, 1, T, T], for devices without the flex kernel."""
    length = documents.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    same = documents[:, :, None] == documents[:, None, :]
    return (same & causal)[:, None]
