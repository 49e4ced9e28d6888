"""Raw files to text shards, a tokenizer and token shards."""

from framework.app import entry
from framework.config import PrepareConfig
from framework.errors import UserError


@entry("prepare", PrepareConfig)
def main(config: PrepareConfig) -> None:
    """Run `python -m framework.prepare`."""
    try:
        from framework.corpus.pipeline import prepare
    except ModuleNotFoundError as error:
        raise UserError(f"prepare needs {error.name}, which is not installed; pip install 'loam[corpus]'") from error
    prepare(config)


if __name__ == "__main__":
    main()
