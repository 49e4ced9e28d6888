"""A family's `config.json`, from a `ModelConfig` and to one."""

from dataclasses import fields
from typing import Any

from framework.config import ModelConfig
from framework.errors import UserError
from framework.model.classifier import Classes
from framework.model.families import EUROBERT, FAMILIES, GPT2, MISTRAL, QWEN3, ROPE_SCALING_KEYS, Family, family_of

_CLASSIFIER = "ForSequenceClassification"  # how the names of such architectures end
_PROBLEMS = {False: "single_label_classification", True: "multi_label_classification"}  # by `Classes.several`
_POOLING = {"classifier_pooling": "late"}  # EuroBERT's: the mean of the logits of all tokens


def to_json(config: ModelConfig, classes: Classes | None = None) -> dict[str, Any]:
    """The family's `config.json`, without token ids and dtype; with `classes`, that of a classifier.

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
    return data if classes is None else data | _classes_to_json(classes, family)


def _classes_to_json(classes: Classes, family: Family) -> dict[str, Any]:
    return {
        "architectures": [family.classifier],
        "id2label": {str(number): name for number, name in enumerate(classes.names)},
        "label2id": {name: number for number, name in enumerate(classes.names)},
        "problem_type": _PROBLEMS[classes.several],
        **(_POOLING if family is EUROBERT else {}),
    }


def classes_from_json(data: dict[str, Any], file: str) -> Classes | None:
    """What the classifier of a `config.json` tells apart; None for a model that is none.

    Raises UserError naming the key for one that judges in another way than `Classifier`.
    """
    if not any(str(name).endswith(_CLASSIFIER) for name in data.get("architectures") or ()):
        return None
    named = data.get("id2label") or {}
    try:
        names = tuple(str(name) for _, name in sorted((int(number), name) for number, name in named.items()))
        whole = sorted(map(int, named)) == list(range(len(names))) and len(set(names)) == len(names) > 0
    except (AttributeError, ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{file}: id2label is {named!r}; it must name each class once, by numbers from 0 on")
    several = data.get("problem_type") == _PROBLEMS[True] or len(names) == 1
    computed: dict[str, tuple[Any, ...]] = {"problem_type": (_PROBLEMS[False], _PROBLEMS[True], None)}
    if data.get("model_type") == EUROBERT.model_type:
        computed |= {key: (value,) for key, value in _POOLING.items()}
    for key, values in computed.items():
        if data.get(key, values[0]) not in values:
            raise UserError(f"{file}: {key}={data[key]!r} is not supported; it must be {values[0]!r}")
    return Classes(names, several)


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
    for key, values in family.supported.items():
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
