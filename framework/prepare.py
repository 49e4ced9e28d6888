"""Raw files to text shards, a tokenizer and token shards."""

from framework.app import entry
from framework.config import PrepareConfig


@entry("prepare", PrepareConfig)
def main(config: PrepareConfig) -> None:
    """Run `python -m framework.prepare`."""
    from framework.corpus.pipeline import prepare

    prepare(config)


if __name__ == "__main__":
    main()
