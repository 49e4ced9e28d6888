"""What a model is to predict, made of rows of tokens: `configs/objective/`."""

from framework.config import ObjectiveConfig
from framework.errors import UserError
from framework.stream.fill_in_middle import FillInMiddle
from framework.stream.loader import Objective, causal_lm
from framework.stream.manifest import Manifest


def open_objective(config: ObjectiveConfig, manifest: Manifest, seed: int) -> Objective:
    """The objective that `config` names; `seed` is that of its draws.

    Raises:
        UserError: the tokenizer of the data has no symbols for it.
    """
    if config.name == "causal_lm":
        return causal_lm
    prefix, middle, suffix = (_id(config, manifest, f"<|fim_{part}|>") for part in ("prefix", "middle", "suffix"))
    return FillInMiddle(config.rate, config.spm_rate, seed, manifest.end_of_text, prefix, middle, suffix)


def _id(config: ObjectiveConfig, manifest: Manifest, symbol: str) -> int:
    if symbol not in manifest.reserved:
        raise UserError(
            f"objective.name: {config.name} needs the symbol {symbol}, which {manifest.path} does not list; "
            "prepare the data again: run python -m framework.prepare with the same settings"
        )
    return manifest.reserved[symbol]
