"""The transformer, in one file: GPT-2, Llama, Mistral, Qwen3 and EuroBERT are settings of `ModelConfig`.

The code knows nothing of parallelism: each module touches only its own parameters in its own forward, so
that sharding by module hooks (ZeRO-3), compilation and activation checkpointing work from outside.
Parameter names are those of the checkpoints; changing one breaks every checkpoint there is.

Shapes: B batch, T time, C hidden size, V vocabulary, H heads, G key-value heads, D head size.
"""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from framework.config import ModelConfig
from framework.model.cache import Cache
from framework.model.width import is_hidden_matrix, output_multiplier, query_multiplier, width_ratio
from kernels import Documents

Head = Callable[[Tensor, Tensor], Any]  # of hidden states [B, T, C] and the output projection's weight [V, C]


def logits(x_BTC: Tensor, weight_VC: Tensor) -> Tensor:
    """The plain head: hidden states [B, T, C] to logits [B, T, V]."""
    return F.linear(x_BTC, weight_VC)  # looked up at the call, for ZeRO-3 puts a linear of its own there


class Transformer(nn.Module):
    """Tokens to logits: of the token that follows, or, of an encoder, of the token in each place."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocabulary_size, config.hidden_size)
        if config.position == "learned":
            self.positions = nn.Embedding(config.maximum_positions, config.hidden_size)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = _norm(config)
        self.output_multiplier = output_multiplier(config)
        if not config.tied_embeddings:
            self.output = Output(config.hidden_size, config.vocabulary_size, bias=False)

    def forward(
        self,
        tokens_BT: Tensor,
        document_BT: Tensor | None = None,
        cache: Cache | None = None,
        last_only: bool = False,
        head: Head = logits,
        positions_BT: Tensor | None = None,
    ) -> Any:
        """Logits [B, T, V] in the dtype of the weights; with `last_only`, those of the last position, [B, 1, V].

        head: what to make of the last hidden states [B, T, C] and the output projection's weight [V, C] instead: a
        loss of `framework.model.loss`, which needs no logits of all tokens at once.

        document_BT: int32, the number of each token's document within its row, in contiguous runs: positions
        restart with each, and attention does not cross them. With a `cache` there must be none: the tokens
        then continue the ones in it.
        positions_BT: where the tokens stand in their documents, for a caller that knows better.
        """
        if cache is not None and document_BT is not None:
            raise ValueError("a cache holds one document a row; pass either document or cache")
        documents = None if document_BT is None else kernels.documents(document_BT)
        if positions_BT is None:
            positions_BT = self._positions(tokens_BT, documents, cache)
        x_BTC = self.embedding(tokens_BT)
        rotation = None
        if self.config.position == "learned":
            x_BTC = x_BTC + self.positions(positions_BT)
        else:
            rotation = rotary_angles(self.config, positions_BT)
        for block in self.blocks:
            x_BTC = block(x_BTC, rotation, documents, cache)
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        x_BTC = self.norm(x_BTC[:, -1:] if last_only else x_BTC)
        if self.output_multiplier != 1:
            x_BTC = x_BTC * self.output_multiplier
        return self.project(x_BTC, head)

    def project(self, x_BTC: Tensor, head: Head) -> Any:
        """What `head` makes of the last hidden states and the output projection."""
        return self.embedding(x_BTC, head) if self.config.tied_embeddings else self.output(x_BTC, head)

    def _positions(self, tokens_BT: Tensor, documents: Documents | None, cache: Cache | None) -> Tensor:
        if documents is not None:
            return positions_in_documents(documents)
        if cache is not None:
            return cache.positions(tokens_BT.shape[1])
        return torch.arange(tokens_BT.shape[1], device=tokens_BT.device)[None, :]


class Embedding(nn.Embedding):
    """Token embedding that also serves as the output projection where the two are tied.

    Both uses are this module's forward, so that hooks which gather its weight (ZeRO-3) fire for both.
    """

    def forward(self, x: Tensor, head: Head | None = None) -> Any:
        """Tokens [B, T] to vectors [B, T, C]; with `head`, vectors to what that makes of them and the weight [V, C]."""
        return super().forward(x) if head is None else head(x, self.weight)


class Output(nn.Linear):
    """Output projection where it is not tied to the embedding."""

    def forward(self, x: Tensor, head: Head = logits) -> Any:
        """What `head` makes of vectors [B, T, C] and the weight [V, C]."""
        return head(x, self.weight)


class Block(nn.Module):
    """Attention and feed-forward network, each normalised before and added to the residual stream."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config, layer)
        self.mlp_norm = _norm(config)
        self.mlp = GatedMlp(config) if config.activation == "swiglu" else Mlp(config)

    def forward(
        self,
        x_BTC: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        documents: Documents | None,
        cache: Cache | None,
    ) -> Tensor:
        """Residual stream [B, T, C] in and out; `rotation` is that of `rotary_angles`."""
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), rotation, documents, cache)
        return x_BTC + self.mlp(self.mlp_norm(x_BTC))


class Attention(nn.Module):
    """Multi-head attention with fewer key-value heads, rotary positions and QK-norm where configured."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_size = config.head_size
        self.causal = config.causal
        self.window = config.sliding_window
        self.mix: Callable[..., Tensor] = kernels.attention  # may be replaced by a caller who deals heads to ranks
        self.query_multiplier = query_multiplier(config)
        queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
        self.query = nn.Linear(config.hidden_size, queries, bias=config.attention_bias)
        self.key = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.value = nn.Linear(config.hidden_size, keys, bias=config.attention_bias)
        self.output = nn.Linear(queries, config.hidden_size, bias=config.attention_output_bias)
        per_head_norm = config.qk_norm
        self.query_norm = nn.RMSNorm(config.head_size, eps=config.norm_epsilon) if per_head_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(config.head_size, eps=config.norm_epsilon) if per_head_norm else nn.Identity()

    def forward(
        self,
        x_BTC: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        documents: Documents | None,
        cache: Cache | None,
    ) -> Tensor:
        """Normalised residual stream [B, T, C] to this layer's addition to it."""
        q_BTHD = self.query_norm(self.query(x_BTC).unflatten(-1, (-1, self.head_size)))
        k_BTGD = self.key_norm(self.key(x_BTC).unflatten(-1, (-1, self.head_size)))
        v_BTGD = self.value(x_BTC).unflatten(-1, (-1, self.head_size))
        if self.query_multiplier != 1:
            q_BTHD = q_BTHD * self.query_multiplier
        if rotation is not None:
            q_BTHD, k_BTGD = rotate(q_BTHD, rotation), rotate(k_BTGD, rotation)
        if cache is not None:
            k_BTGD, v_BTGD = cache.update(self.layer, k_BTGD, v_BTGD)
        if cache is not None and cache.visible is not None:
            mixed_BTHD = kernels.decoding_attention(q_BTHD, k_BTGD, v_BTGD, cache.visible)
        else:
            mixed_BTHD = self.mix(q_BTHD, k_BTGD, v_BTGD, causal=self.causal, document=documents, window=self.window)
        return self.output(mixed_BTHD.flatten(-2))


class GatedMlp(nn.Module):
    """SwiGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Normalised residual stream [B, T, C] to this layer's addition to it."""
        return self.down(F.silu(self.gate(x_BTC)) * self.up(x_BTC))


class Mlp(nn.Module):
    """GELU in its tanh approximation, as GPT-2 has it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Normalised residual stream [B, T, C] to this layer's addition to it."""
        return self.down(F.gelu(self.up(x_BTC), approximate="tanh"))


def _norm(config: ModelConfig) -> nn.Module:
    """Both compute in fp32 inside, whatever the dtype they are given."""
    kind = nn.RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.hidden_size, eps=config.norm_epsilon)


# ------------------------------------------------------------------------------------- positions


def positions_in_documents(documents: Documents) -> Tensor:
    """Position [B, T], int64, of each token within its document."""
    first_BT = documents.first_BT
    return torch.arange(first_BT.shape[1], device=first_BT.device) - first_BT


def rotary_angles(config: ModelConfig, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, T, 1, D/2] of the rotary embedding (arXiv:2104.09864), in fp32.

    Computed anew in each forward pass: a buffer would be rounded with the weights when a model is cast to
    bf16, and positions beyond 256 would then fall together.
    """
    exponents = torch.arange(0, config.head_size, 2, device=positions_BT.device, dtype=torch.float32)
    frequencies_D = 1.0 / config.rope_theta ** (exponents / config.head_size)
    if config.rope_scaling is not None:
        frequencies_D = _scale_frequencies(frequencies_D, config.rope_scaling)
    angles = positions_BT[:, :, None, None].float() * frequencies_D
    return angles.cos(), angles.sin()


def _scale_frequencies(frequencies: Tensor, scaling: dict[str, float]) -> Tensor:
    """Llama 3.1's longer context: low frequencies divided by `factor`, high ones kept, a ramp between.

    Low and high are by how often a wave turns within `original_max_position_embeddings` positions.
    """
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return kept * frequencies + (1 - kept) * frequencies / scaling["factor"]


def rotate(x_BTHD: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + D/2) by its angle; the pairing is that of the Hugging Face weights.

    The angles are fp32, so lower precisions are promoted and the turning is done in fp32.
    """
    cosine, sine = rotation
    first, second = x_BTHD.chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.type_as(x_BTHD)


# ------------------------------------------------------------------------------- initialisation


@torch.no_grad()
def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter; the values depend on the seed and the parameter's name and shape, on nothing else.

    Matrices and embeddings: normal with standard deviation `initializer_range`, divided by sqrt(2 x layers)
    where they write to the residual stream (GPT-2), and by sqrt(width ratio) in blocks under muP. Norms 1, biases 0.
    """
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            deviation = config.initializer_range
            if name.endswith(("attention.output.weight", "mlp.down.weight")):
                deviation /= math.sqrt(2 * config.layers)
            if is_hidden_matrix(name, parameter.dim()):
                deviation /= math.sqrt(width_ratio(config))
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
