"""Qwen2 and Qwen2.5: the pre-norm decoder with biases on queries, keys and values."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from wheelpit.kernels.attention_inputs import AttentionInputs, LayerCache
from wheelpit.layers.embedding import Embedding
from wheelpit.layers.linear import Linear, Projection
from wheelpit.layers.mlp import GatedMLP
from wheelpit.layers.norm import RMSNorm
from wheelpit.layers.placement import Placement
from wheelpit.layers.rotary import Rotary
from wheelpit.models.config import ModelConfig


class Attention:
    """Grouped-query self-attention."""

    def __init__(self, config: ModelConfig, placement: Placement) -> None:
        self.operations = placement.operations
        self.head_dim = config.head_dim
        query_size = config.num_heads * config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        self.qkv_proj = Linear(
            config.hidden_size,
            {
                "q_proj": Projection(query_size, rotary_dim=config.head_dim),
                "k_proj": Projection(kv_size, rotary_dim=config.head_dim),
                "v_proj": Projection(kv_size),
            },
            True,
            placement,
        )
        self.o_proj = Linear(
            query_size, {"o_proj": Projection(config.hidden_size)}, False, placement
        )

    def __call__(
        self, x: Tensor, rotations: Tensor, cache: LayerCache, inputs: AttentionInputs
    ) -> Tensor:
        """x: [T, E]. Returns [T, E]."""
        heads = self.qkv_proj(x).view(len(x), -1, self.head_dim)  # [T, H + 2 * K, D]
        return self.o_proj(self.operations.attend(heads, rotations, cache, inputs))


class Block:
    """Attention, then the MLP, each on the normalised and added to the residual stream."""

    def __init__(self, config: ModelConfig, placement: Placement) -> None:
        eps = config.rms_norm_eps
        self.input_layernorm = RMSNorm(config.hidden_size, eps, placement)
        self.self_attn = Attention(config, placement)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps, placement)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, False, placement)

    def __call__(
        self,
        hidden: Tensor,
        delta: Tensor | None,
        rotations: Tensor,
        cache: LayerCache,
        inputs: AttentionInputs,
    ) -> Tensor:
        """hidden: [T, E] float32, the residual stream; delta, then attention are added in place.

        delta: [T, E], what the block before adds. Returns what this one adds, [T, E].
        """
        normed = self.input_layernorm(hidden, delta)
        attended = self.self_attn(normed, rotations, cache, inputs)
        return self.mlp(self.post_attention_layernorm(hidden, attended))


class Decoder:
    """Embedding, blocks and the final norm."""

    def __init__(self, config: ModelConfig, num_positions: int, placement: Placement) -> None:
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, placement)
        self.rotary = Rotary(
            config.head_dim, config.rope_theta, config.rope_scaling, num_positions, placement
        )
        self.layers = [Block(config, placement) for _ in range(config.num_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, placement)

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        caches: Sequence[LayerCache],
        inputs: AttentionInputs,
    ) -> Tensor:
        """token_ids, positions: [T] int64. Returns [T, E] in the model's dtype."""
        hidden = self.embed_tokens(token_ids)
        rotations = self.rotary(positions)
        delta = None
        for block, cache in zip(self.layers, caches, strict=True):
            delta = block(hidden, delta, rotations, cache, inputs)
        return self.norm(hidden, delta)


class Qwen2ForCausalLM:
    """The decoder and the head that turns hidden states into logits."""

    def __init__(self, config: ModelConfig, num_positions: int, placement: Placement) -> None:
        self.model = Decoder(config, num_positions, placement)
        self.lm_head = Linear(
            config.hidden_size, {"lm_head": Projection(config.vocab_size)}, False, placement
        )
        if config.tie_word_embeddings:
            self.lm_head.tie(self.model.embed_tokens.weight)

    def __call__(
        self,
        token_ids: Tensor,
        positions: Tensor,
        caches: Sequence[LayerCache],
        inputs: AttentionInputs,
    ) -> Tensor:
        """See `Decoder`."""
        return self.model(token_ids, positions, caches, inputs)

    def compute_logits(self, hidden: Tensor) -> Tensor:
        """hidden: [B, E], rows of what the call returned. Returns [B, V] float32."""
        return self.lm_head(hidden).float()
