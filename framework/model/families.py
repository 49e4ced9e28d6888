"""The Hugging Face families that a `ModelConfig` can be written as, as tables.

A family says how our fields are called in its `config.json`, which values of ours it can express, which
settings of its own we do not compute, and how its tensors are named and laid out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from framework.config import ModelConfig
from framework.errors import UserError

ROPE_SCALING_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


@dataclass(frozen=True)
class TensorRule:
    """One tensor of a family: ours joined along the output dimension, then transposed if so marked."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False

    def to_theirs(self, state: Mapping[str, Tensor]) -> Tensor:
        """The family's tensor, contiguous, from our state dict."""
        joined = torch.cat([state[name] for name in self.ours]) if len(self.ours) > 1 else state[self.ours[0]]
        return (joined.T if self.transposed else joined).contiguous()

    def to_ours(self, tensor: Tensor) -> dict[str, Tensor]:
        """Our tensors, contiguous, from the family's; the joined ones are of equal size."""
        parts = (tensor.T if self.transposed else tensor).chunk(len(self.ours))
        return {name: part.contiguous() for name, part in zip(self.ours, parts, strict=True)}

    def shape(self, shapes: dict[str, torch.Size]) -> list[int]:
        """Shape of the family's tensor from the shapes of ours."""
        first, *rest = shapes[self.ours[0]]
        joined = [first * len(self.ours), *rest]
        return joined[::-1] if self.transposed else joined


@dataclass(frozen=True)
class Family:
    """How one model type of `transformers` says what a `ModelConfig` says."""

    model_type: str
    architecture: str
    prefix: str  # of every tensor but the output projection; checkpoints of the bare model leave it out
    fields: dict[str, str]  # our field -> key in config.json
    defaults: dict[str, Any]  # key -> what `transformers` takes where config.json has none or null
    expresses: dict[str, tuple[Any, ...]]  # our field -> the values of it that this family can have
    supported: dict[str, tuple[Any, ...]]  # key -> the values of it that we compute; the first is written

    def misfits(self, config: ModelConfig) -> list[tuple[str, str]]:
        """Fields that this family cannot express, each with what it would have to be."""
        found = [
            (name, " | ".join(str(value) for value in values))
            for name, values in self.expresses.items()
            if getattr(config, name) not in values
        ]
        if self.model_type == "gpt2":
            if config.key_value_heads != config.heads:
                found.append(("key_value_heads", str(config.heads)))
            if config.heads * config.head_size != config.hidden_size:
                found.append(("head_size", str(config.hidden_size // config.heads)))
            if config.rope_scaling is not None:
                found.append(("rope_scaling", "null"))
        else:
            if config.attention_bias != config.attention_output_bias:
                found.append(("attention_output_bias", str(config.attention_bias)))
            if config.rope_scaling is not None and set(config.rope_scaling) != set(ROPE_SCALING_KEYS):
                found.append(("rope_scaling", "the keys " + ", ".join(ROPE_SCALING_KEYS)))
        return found


_COMMON_FIELDS = {
    "vocabulary_size": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
_LLAMA_FIELDS = _COMMON_FIELDS | {
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "intermediate_size": "intermediate_size",
    "maximum_positions": "max_position_embeddings",
    "norm_epsilon": "rms_norm_eps",
}
_LLAMA_DEFAULTS = {
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "num_key_value_heads": 0,  # 0: `ModelConfig` then takes as many as heads
    "head_dim": 0,  # 0: `ModelConfig` then takes hidden_size / heads
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
    "sliding_window": 0,
}
_LLAMA_SUPPORTED = {"hidden_act": ("silu", "swish")}
_LLAMA_EXPRESSES = {"norm": ("rmsnorm",), "activation": ("swiglu",), "position": ("rotary",)}

LLAMA = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    prefix="model.",
    fields=_LLAMA_FIELDS | {"attention_bias": "attention_bias", "mlp_bias": "mlp_bias"},
    defaults=_LLAMA_DEFAULTS,
    expresses=_LLAMA_EXPRESSES | {"qk_norm": (False,), "sliding_window": (0,)},
    supported=_LLAMA_SUPPORTED,
)
MISTRAL = Family(
    model_type="mistral",
    architecture="MistralForCausalLM",
    prefix="model.",
    fields=_LLAMA_FIELDS | {"sliding_window": "sliding_window"},
    defaults=_LLAMA_DEFAULTS | {"num_key_value_heads": 8, "max_position_embeddings": 131_072},
    expresses=_LLAMA_EXPRESSES | {"qk_norm": (False,), "attention_bias": (False,), "mlp_bias": (False,)},
    supported=_LLAMA_SUPPORTED,
)
QWEN3 = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    prefix="model.",
    fields=_LLAMA_FIELDS | {"attention_bias": "attention_bias", "sliding_window": "sliding_window"},
    defaults=_LLAMA_DEFAULTS | {"num_key_value_heads": 32, "head_dim": 128, "max_position_embeddings": 32_768},
    expresses=_LLAMA_EXPRESSES | {"qk_norm": (True,), "mlp_bias": (False,)},
    supported=_LLAMA_SUPPORTED,
)
GPT2 = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    prefix="transformer.",
    fields=_COMMON_FIELDS
    | {
        "hidden_size": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "intermediate_size": "n_inner",
        "maximum_positions": "n_positions",
        "norm_epsilon": "layer_norm_epsilon",
    },
    defaults={
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "n_inner": 0,  # 0: `ModelConfig` then takes 4 x hidden_size
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
    },
    expresses={
        "norm": ("layernorm",),
        "activation": ("gelu",),
        "position": ("learned",),
        "attention_bias": (True,),
        "attention_output_bias": (True,),
        "mlp_bias": (True,),
        "qk_norm": (False,),
        "sliding_window": (0,),
    },
    supported={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
)
FAMILIES = (LLAMA, MISTRAL, QWEN3, GPT2)


def family_of(config: ModelConfig) -> Family:
    """The first family that expresses the whole of `config`.

    Raises UserError that names the fields standing in the way of the nearest one. A window of 0 makes a
    Mistral a Llama, and it is written as one.
    """
    misfits = {family.model_type: family.misfits(config) for family in FAMILIES}
    for family in FAMILIES:
        if not misfits[family.model_type]:
            return family
    nearest = min(misfits, key=lambda model_type: len(misfits[model_type]))
    names = " and ".join(f"model.{name}={getattr(config, name)}" for name, _ in misfits[nearest])
    remedy = ", ".join(f"model.{name}={value}" for name, value in misfits[nearest])
    raise UserError(
        f"{names}: no Hugging Face family ({', '.join(misfits)}) has this; "
        f"the nearest is {nearest}, which needs {remedy}"
    )


def check_exportable(config: ModelConfig) -> None:
    """Raise UserError, naming the fields, unless the model can be written as a Hugging Face directory."""
    family_of(config)


# ----------------------------------------------------------------------------------- config.json


def to_json(config: ModelConfig) -> dict[str, Any]:
    """The family's `config.json`, without token ids and dtype.

    The rotary settings are written as `rope_theta` and `rope_scaling`: every version of `transformers` reads
    those, whereas the `rope_parameters` of version 5 are unknown to older consumers.
    """
    family = family_of(config)
    data: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type}
    data |= {theirs: getattr(config, ours) for ours, theirs in family.fields.items()}
    data |= {key: values[0] for key, values in family.supported.items()}
    if config.position == "rotary":
        data |= {"rope_theta": config.rope_theta, "rope_scaling": _scaling_to_json(config.rope_scaling)}
    if family is MISTRAL:
        data["sliding_window"] = config.sliding_window or None
    if family is QWEN3:
        windowed = bool(config.sliding_window)
        kind = "sliding_attention" if windowed else "full_attention"
        data |= {
            "use_sliding_window": windowed,
            "sliding_window": config.sliding_window or None,
            "max_window_layers": 0 if windowed else config.layers,
            "layer_types": [kind] * config.layers,
        }
    if family is GPT2:  # trained without, and its own default is 0.1
        data |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return data


def _scaling_to_json(scaling: dict[str, float] | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    length = int(scaling["original_max_position_embeddings"])
    return {"rope_type": "llama3", **scaling, "original_max_position_embeddings": length}


def from_json(data: dict[str, Any], file: str) -> tuple[Family, ModelConfig]:
    """Family and `ModelConfig` of a `config.json`, whose name `file` is used in messages.

    Raises UserError naming the key for a family, a setting or a value that we do not compute.
    """
    by_type = {family.model_type: family for family in FAMILIES}
    model_type = data.get("model_type")
    if model_type not in by_type:
        raise UserError(f"{file}: model_type is {model_type!r}; supported are {', '.join(by_type)}")
    family = by_type[model_type]
    for key, values in (family.supported | {"quantization_config": (None,)}).items():
        if data.get(key, values[0]) not in values:
            raise UserError(f"{file}: {key}={data[key]!r} is not supported; it must be {values[0]!r}")

    settings: dict[str, Any] = {ours: values[0] for ours, values in family.expresses.items()}
    for ours, theirs in family.fields.items():
        value = data.get(theirs)
        if value is None:
            if theirs not in family.defaults:
                raise UserError(f"{file}: {theirs} is missing; a {model_type} model needs it")
            value = family.defaults[theirs]
        settings[ours] = value
    if family is not GPT2:
        settings["attention_output_bias"] = settings["attention_bias"]
        settings["rope_theta"], settings["rope_scaling"] = _rope_from_json(data, file)
    if family is MISTRAL:  # null means no window, but no entry at all means the one of Mistral 7B
        settings["sliding_window"] = data.get("sliding_window", 4096) or 0
    if family is QWEN3:
        settings["sliding_window"] = _qwen3_window(data, settings["layers"], file)
    return family, _checked(settings, file)


def _checked(settings: dict[str, Any], file: str) -> ModelConfig:
    kinds = {field.name: field.type for field in fields(ModelConfig)}
    for name, value in settings.items():
        numeric = kinds[name] in (int, float)
        if numeric and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{file}: {name} is {value!r}; it must be a number")
    try:
        config = ModelConfig(**settings)
        config.check()
    except (UserError, ArithmeticError, TypeError) as error:
        raise UserError(f"{file}: {error}") from error
    return config


def _rope_from_json(data: dict[str, Any], file: str) -> tuple[float, dict[str, float] | None]:
    """Base and scaling of the rotary embedding, from the keys of `transformers` 4 or of 5."""
    rope = {**(data.get("rope_scaling") or {}), **(data.get("rope_parameters") or {})}
    theta = float(rope.get("rope_theta", data.get("rope_theta") or 10_000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    share = rope.get("partial_rotary_factor", data.get("partial_rotary_factor", 1.0))
    if share != 1.0:
        raise UserError(f"{file}: partial_rotary_factor={share} is not supported; it must be 1")
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise UserError(f"{file}: rope_type={kind!r} is not supported; it must be default or llama3")
    rope.setdefault("original_max_position_embeddings", data.get("max_position_embeddings"))
    for key in ROPE_SCALING_KEYS:
        if rope.get(key) is None:
            raise UserError(f"{file}: {key} is missing; rope_type llama3 needs it")
    return theta, {key: float(rope[key]) for key in ROPE_SCALING_KEYS}


def _qwen3_window(data: dict[str, Any], layers: int, file: str) -> int:
    window = data.get("sliding_window") if data.get("use_sliding_window") else None
    if window is None:
        return 0
    first = data.get("max_window_layers", 28)
    kinds = data.get("layer_types") or ["full_attention"] * first + ["sliding_attention"] * (layers - first)
    if "full_attention" not in kinds:
        return window
    if "sliding_attention" not in kinds:
        return 0
    raise UserError(f"{file}: layer_types mixes windowed and full attention, which is not supported")


# --------------------------------------------------------------------------------------- tensors


def tensor_rules(family: Family, config: ModelConfig) -> list[TensorRule]:
    """Every tensor of the family's checkpoint for this model."""
    rules = _gpt2_rules(config) if family is GPT2 else _llama_rules(config)
    if not config.tied_embeddings:
        rules.append(TensorRule("lm_head.weight", ("output.weight",)))
    return rules


def _llama_rules(config: ModelConfig) -> list[TensorRule]:
    rules = [
        TensorRule("model.embed_tokens.weight", ("embedding.weight",)),
        TensorRule("model.norm.weight", ("norm.weight",)),
    ]
    parts = {
        "input_layernorm": ("attention_norm", False),
        "self_attn.q_proj": ("attention.query", config.attention_bias),
        "self_attn.k_proj": ("attention.key", config.attention_bias),
        "self_attn.v_proj": ("attention.value", config.attention_bias),
        "self_attn.o_proj": ("attention.output", config.attention_output_bias),
        "post_attention_layernorm": ("mlp_norm", False),
        "mlp.gate_proj": ("mlp.gate", config.mlp_bias),
        "mlp.up_proj": ("mlp.up", config.mlp_bias),
        "mlp.down_proj": ("mlp.down", config.mlp_bias),
    }
    if config.qk_norm:
        parts |= {
            "self_attn.q_norm": ("attention.query_norm", False),
            "self_attn.k_norm": ("attention.key_norm", False),
        }
    for layer in range(config.layers):
        for theirs, (ours, biased) in parts.items():
            for kind in ("weight", "bias") if biased else ("weight",):
                rules.append(TensorRule(f"model.layers.{layer}.{theirs}.{kind}", (f"blocks.{layer}.{ours}.{kind}",)))
    return rules


def _gpt2_rules(config: ModelConfig) -> list[TensorRule]:
    """GPT-2 stores its linear weights input first, and query, key and value as one."""
    rules = [
        TensorRule("transformer.wte.weight", ("embedding.weight",)),
        TensorRule("transformer.wpe.weight", ("positions.weight",)),
        TensorRule("transformer.ln_f.weight", ("norm.weight",)),
        TensorRule("transformer.ln_f.bias", ("norm.bias",)),
    ]
    norms = {"ln_1": "attention_norm", "ln_2": "mlp_norm"}
    linears = {
        "attn.c_attn": ("attention.query", "attention.key", "attention.value"),
        "attn.c_proj": ("attention.output",),
        "mlp.c_fc": ("mlp.up",),
        "mlp.c_proj": ("mlp.down",),
    }
    for layer in range(config.layers):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        for kind in ("weight", "bias"):
            for norm, name in norms.items():
                rules.append(TensorRule(f"{theirs}.{norm}.{kind}", (f"{ours}.{name}.{kind}",)))
            for linear, names in linears.items():
                parts = tuple(f"{ours}.{name}.{kind}" for name in names)
                rules.append(TensorRule(f"{theirs}.{linear}.{kind}", parts, transposed=kind == "weight"))
    return rules
