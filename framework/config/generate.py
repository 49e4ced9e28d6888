"""Model directory to text: `configs/generate.yaml`."""

from dataclasses import dataclass, field
from typing import Any

from framework.checks import require, require_choice, require_not_negative, require_positive


@dataclass
class ModelSource:
    path: str = ""  # a model directory


@dataclass
class HookConfig:
    """One thing that is done with every text that was written. One of the three is given."""

    strip: bool = False  # white space goes from both ends
    # what the pattern finds first remains of the text: its first group, where it has one; a text without fails
    regex: str = ""
    replacement: str | None = None  # with regex: all that it finds becomes this (\1: its first group); nothing fails
    json_schema: str = ""  # file; a text that is not JSON, or not as the schema has it, fails

    def check(self, name: str) -> None:
        given = [key for key in ("strip", "regex", "json_schema") if getattr(self, key)]
        require(
            len(given) == 1, name, f"gives {' and '.join(given) or 'nothing'}", "give one of strip, regex, json_schema"
        )
        require(
            self.replacement is None or bool(self.regex), name, "gives replacement without regex", "give a pattern too"
        )


@dataclass
class GenerateConfig:
    """`python -m framework.generate`: model directory and prompts to text."""

    model: ModelSource = field(default_factory=ModelSource)

    # What is continued: one prompt, several, the rows of a file, or what a person types.
    prompt: str = field(default="", metadata={"text": True})
    prompts: list[Any] = field(default_factory=list)  # texts
    input: str = ""  # JSON lines, each with `prompt` or `messages`; packed or behind a URL as it may be
    output: str = ""  # JSON lines: the rows of `input` with their `completion`; one that was begun is gone on with
    interactive: bool = False  # a conversation at the terminal, by the model's chat template where it has one
    echo: bool = True  # print the prompt before its continuation
    # of `messages`, and of a conversation: auto (the model's own) | loam | chatml | plain | a file with Jinja
    template: str = "auto"
    system: str = field(default="", metadata={"text": True})  # what a conversation begins with

    # How a text is written.
    maximum_tokens: int = 128
    temperature: float = 0.8  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 0.95  # 1: all
    min_p: float = 0.0  # share of the likeliest token's probability; 0: all
    repetition_penalty: float = 1.0  # divides logits above 0 of tokens that came before, multiplies others; 1: none
    seed: int | None = 0  # null: another each time
    stop: list[str] = field(default_factory=list)  # generation ends before the first of these texts
    beams: int = 1  # more: beam search, which draws nothing
    length_penalty: float = 1.0  # of beam search: log-probability / tokens ** this is what counts
    log_probabilities: int | None = None  # of each token, and of so many likeliest ones; null: none

    # What is done with it.
    postprocess: list[HookConfig] = field(default_factory=list)  # in this order
    failed: str = "mark"  # a text that fails a check: mark it | retry, with other seeds, then mark it | stop
    retries: int = 3  # at most

    # How much is done at a time.
    batch: int = 8  # texts that are written side by side
    positions: int = 0  # tokens of prompt and continuation; 0: as many as needed, at most 8192 in a conversation
    prefill_tokens: int = 512  # of a prompt that a forward pass reads

    def check(self, world_size: int = 1) -> None:
        require(world_size == 1, "torchrun", f"started {world_size} processes", "generate runs as one")
        require(bool(self.model.path), "model.path", "is missing", "give a model directory, e.g. runs/demo/model")
        for name in ("maximum_tokens", "beams", "batch", "prefill_tokens"):
            require_positive(name, getattr(self, name))
        for name in ("positions", "retries"):
            require_not_negative(name, getattr(self, name))
        for prompt in self.prompts:
            require(isinstance(prompt, str), "prompts", f"{prompt} is no text", f"""write '["{prompt}"]'""")
        ways = [name for name in ("prompt", "prompts", "input", "interactive") if getattr(self, name)]
        require(len(ways) < 2, ways[-1] if ways else "", f"is given beside {(ways or [''])[0]}", "give one of them")
        require(bool(self.input) == bool(self.output), "output", "goes with input", "give both, or neither")
        require_choice("failed", self.failed, ("mark", "retry", "stop"))
        for number, hook in enumerate(self.postprocess):
            hook.check(f"postprocess[{number}]")
        self._check_combinations()

    def _check_combinations(self) -> None:
        """What goes together."""
        require(
            self.failed != "retry" or bool(self.postprocess),
            "failed",
            "is retry, and postprocess has nothing that a text could fail",
            "give postprocess, or leave it out",
        )
        drawn = self.beams == 1 and self.temperature > 0
        require(
            self.failed != "retry" or drawn,
            "failed",
            "is retry, but without drawing (temperature=0, or beams) a text is always the same",
            "set a temperature above 0, or failed=mark",
        )
        require(
            self.beams == 1 or self.log_probabilities is None,
            "log_probabilities",
            "does not go with beams",
            "leave out one of the two",
        )
        require(
            not self.interactive or (self.beams == 1 and not self.postprocess and self.log_probabilities is None),
            "interactive",
            "goes with neither beams, postprocess nor log_probabilities",
            "leave them out",
        )
        require(
            self.template == "auto" or bool(self.interactive or self.input),
            "template",
            "is of conversations, and prompt is continued as it is",
            "leave it out, or give messages in a file by input=",
        )
        require(all(self.stop), "stop", "has an empty text, which is in front of all others", "leave it out")
        require(self.interactive or not self.system, "system", "is given without interactive", "put it into messages")
