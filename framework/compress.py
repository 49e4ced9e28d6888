"""`python -m framework.compress`: a model directory to a smaller one, and what that cost."""

from framework.app import entry
from framework.config import CompressConfig


@entry("compress", CompressConfig)
def main(config: CompressConfig) -> None:
    """Prune, quantize, write, read back, measure."""
    from framework.compression.job import run

    run(config)


if __name__ == "__main__":
    main()
