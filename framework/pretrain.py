"""Token shards to checkpoints and a verified model directory.

torchrun --nproc-per-node 2 -m framework.pretrain model=tiny zero=stage2 run.name=first
"""

from framework.app import entry
from framework.config import PretrainConfig


def _settle(config: PretrainConfig, given: set[str]) -> None:
    """`model.from` brings the shape, and `data.tokens` the steps."""
    if config.origin:
        from framework.training.origin import take_shape

        take_shape(config, given)
    if config.data.tokens:
        from framework.planning.defaults import settle_steps

        settle_steps(config, given)


@entry("pretrain", PretrainConfig, _settle)
def main(config: PretrainConfig) -> None:
    """Train as `config` says."""
    from framework.training.pretraining import train

    train(config)


if __name__ == "__main__":
    main()
