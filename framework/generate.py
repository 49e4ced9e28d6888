"""`python -m framework.generate`: text from a model directory."""

from framework.app import entry
from framework.config import GenerateConfig


@entry("generate", GenerateConfig)
def main(config: GenerateConfig) -> None:
    """Continue a prompt, several, the rows of a file, or what a person types."""
    if config.interactive:
        from framework.inference.conversation import converse

        converse(config)
    elif config.input:
        from framework.inference.bulk import complete_file

        print(f"{config.output}: {complete_file(config)} rows written")
    else:
        from framework.inference.printing import print_completions

        print_completions(config)


if __name__ == "__main__":
    main()
