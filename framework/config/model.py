"""Shape of a model: `configs/model/`."""

from dataclasses import dataclass, field

from framework.checks import divisors, require, require_choice, require_not_negative, require_positive


@dataclass
class ModelConfig:
    """Shape of a transformer. GPT-2, Llama, Mistral, Qwen3 and EuroBERT are settings of these fields."""

    vocabulary_size: int = 0  # 0: that of the data's tokenizer
    hidden_size: int = 256
    layers: int = 6
    heads: int = 8
    key_value_heads: int = 0  # 0: as many as heads; fewer: grouped-query attention
    head_size: int = 0  # 0: hidden_size / heads
    intermediate_size: int = 0  # 0: 4 x hidden_size for gelu, 8/3 x hidden_size (to a multiple of 32) for swiglu
    norm: str = "rmsnorm"  # rmsnorm | layernorm
    norm_epsilon: float = 1e-5
    activation: str = "swiglu"  # swiglu | gelu (tanh approximation)
    position: str = "rotary"  # rotary | learned
    maximum_positions: int = 2048  # longest sequence the model is made for
    rope_theta: float = 10_000.0
    rope_scaling: dict[str, float] | None = None  # Llama 3.1: factor, low_freq_factor, ...; None: plain rotary
    qk_norm: bool = False  # RMSNorm on each query and key head (Qwen3)
    attention_bias: bool = False  # on query, key and value projections
    attention_output_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = True
    causal: bool = True  # a token sees those before it; false: all of its document, an encoder for masked_lm
    sliding_window: int = 0  # keys a query sees, itself included; 0: all
    initializer_range: float = 0.02  # standard deviation; residual projections divide it by sqrt(2 x layers)
    mup_base_width: int = 0  # hidden_size at which the learning rate was found (muP); 0: usual parametrisation
    mup_base_head_size: int = 0  # and head_size there; 0: this one

    def __post_init__(self) -> None:
        if self.key_value_heads == 0:
            self.key_value_heads = self.heads
        if self.head_size == 0 and self.heads > 0:
            self.head_size = self.hidden_size // self.heads
        if self.intermediate_size == 0:
            exact = 4 * self.hidden_size if self.activation == "gelu" else 8 * self.hidden_size / 3
            self.intermediate_size = round(exact / 32) * 32 or 32

    def check(self) -> None:
        for name in ("hidden_size", "layers", "heads", "key_value_heads", "maximum_positions", "norm_epsilon"):
            require_positive(f"model.{name}", getattr(self, name))
        for name in ("vocabulary_size", "sliding_window", "initializer_range", "mup_base_width", "mup_base_head_size"):
            require_not_negative(f"model.{name}", getattr(self, name))
        for name in ("head_size", "intermediate_size"):
            require_positive(f"model.{name}", getattr(self, name))
        require_choice("model.norm", self.norm, ("rmsnorm", "layernorm"))
        require_choice("model.activation", self.activation, ("swiglu", "gelu"))
        require_choice("model.position", self.position, ("rotary", "learned"))
        require(
            self.head_size * self.heads == self.hidden_size or self.hidden_size % self.heads == 0,
            "model.heads",
            f"{self.heads} heads do not divide model.hidden_size={self.hidden_size}",
            f"use one of {divisors(self.hidden_size)}",
        )
        require(
            self.heads % self.key_value_heads == 0,
            "model.key_value_heads",
            f"{self.key_value_heads} do not divide model.heads={self.heads}",
            f"use one of {divisors(self.heads)}",
        )
        require(
            self.causal or self.sliding_window == 0,
            "model.sliding_window",
            f"is {self.sliding_window}, and with model.causal=false every token sees its whole document",
            "set it to 0",
        )
        require(
            self.mup_base_width > 0 or self.mup_base_head_size == 0,
            "model.mup_base_head_size",
            f"is {self.mup_base_head_size}, but model.mup_base_width=0 asks for no muP",
            "set model.mup_base_width too, or neither",
        )
        require(
            self.position == "learned" or self.head_size % 2 == 0,
            "model.head_size",
            f"is {self.head_size}",
            "rotary positions turn pairs, so it must be even",
        )


@dataclass
class StartingModelConfig(ModelConfig):
    """A shape to train from random weights, or, as `model.from`, the model directory that has shape and weights.

    From a directory come all fields above, whatever `model=` preset they had; those that the command line or the
    `experiment=` file names must agree with it, but for `maximum_positions`, `rope_theta` and `rope_scaling`, which may
    stretch rotary positions.
    """

    # The field is called `from`, a keyword, which can be neither written as a name here nor passed to `__init__`.
    __annotations__ = {"from": str}
    locals()["from"] = field(default="", init=False, repr=False, compare=False)
