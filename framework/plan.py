"""What a run takes, before it is started: memory, time, money.

python -m framework.plan model=llama_8b cluster=h100_8 cluster.gpus=64 data.tokens=160e9
"""

from typing import TYPE_CHECKING

from framework.app import entry
from framework.config import PlanConfig

if TYPE_CHECKING:
    from framework.planning.parameters import Parameters


def _settle(config: PlanConfig, given: set[str]) -> None:
    """What is not given follows from the model, and from the cluster."""
    from framework.planning import defaults

    if config.origin:
        from framework.training.origin import take_shape

        take_shape(config, given)
    if config.model.vocabulary_size == 0:
        from framework.stream.manifest import read_manifest

        config.model.vocabulary_size = read_manifest(config.data.path).vocabulary_size
    if config.purpose != "inference":
        defaults.settle(config, given, _parameters)


def _parameters(config: PlanConfig) -> "Parameters":
    from framework.finetuning.adaptation.planned import adapted_shapes
    from framework.planning.parameters import parameters_of

    classifies = config.purpose == "finetune" and config.task.name == "classification"
    return parameters_of(config, *adapted_shapes(config.model, config, classifies))


@entry("plan", PlanConfig, _settle)
def main(config: PlanConfig) -> None:
    """Print the plan that `config` asks for."""
    from framework.planning.command import tell

    tell(config, _parameters)


if __name__ == "__main__":
    main()
