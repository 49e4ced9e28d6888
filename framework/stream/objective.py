"""What a model is to predict, made of rows of tokens: `configs/objective/`."""

from framework.config import ObjectiveConfig
from framework.errors import UserError
from framework.stream.fill_in_middle import FillInMiddle
from framework.stream.loader import Objective, causal_lm
from framework.stream.manifest import Manifest
from framework.stream.masked_lm import MaskedLM

HELD_OUT_RATE, HELD_OUT_SEED = 0.15, 0  # of the masks in held-out rows: the same for every run


def open_objective(config: ObjectiveConfig, manifest: Manifest, seed: int) -> Objective:
    """The objective that `config` names; `seed` is that of its draws.

    Raises:
        UserError: the tokenizer of the data has no symbols for it.
    """
    if config.name == "causal_lm":
        return causal_lm
    if config.name == "masked_lm":
        return _masked(config, manifest, config.rate, config.masked, config.random, seed)
    prefix, middle, suffix = (_id(config, manifest, f"<|fim_{part}|>") for part in ("prefix", "middle", "suffix"))
    return FillInMiddle(config.rate, config.spm_rate, seed, manifest.end_of_text, prefix, middle, suffix)


def open_held_out(config: ObjectiveConfig, manifest: Manifest) -> Objective:
    """What held-out rows ask for: the token that follows, or masks of which no setting of the run is part.

    Of these there are 15 %, each <|mask|>, whatever a run trains with, so that the losses of runs compare.
    """
    if config.name != "masked_lm":
        return causal_lm
    return _masked(config, manifest, HELD_OUT_RATE, 1.0, 0.0, HELD_OUT_SEED)


def _masked(
    config: ObjectiveConfig, manifest: Manifest, rate: float, masked: float, random: float, seed: int
) -> MaskedLM:
    mask = _id(config, manifest, "<|mask|>")
    return MaskedLM(rate, masked, random, seed, manifest.vocabulary_size, mask, set(manifest.reserved.values()))


def _id(config: ObjectiveConfig, manifest: Manifest, symbol: str) -> int:
    if symbol not in manifest.reserved:
        raise UserError(
            f"objective.name: {config.name} needs the symbol {symbol}, which {manifest.path} does not list; "
            "prepare the data again: run python -m framework.prepare with the same settings"
        )
    return manifest.reserved[symbol]
