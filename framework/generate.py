"""`python -m framework.generate`: text from a model directory."""

from framework.app import entry
from framework.config import GenerateConfig


@entry("generate", GenerateConfig)
def main(config: GenerateConfig) -> None:
    """Print the continuation of the prompt as it comes."""
    from framework.inference.generation import generate_text, load

    model, tokenizer = load(config.model.path)
    print(config.prompt if config.echo else "", end="", flush=True)
    pieces = generate_text(
        model,
        tokenizer,
        config.prompt,
        maximum_tokens=config.maximum_tokens,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        seed=config.seed,
        stop=config.stop,
    )
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
