"""The README.md of a model directory: what the model is, how it is loaded, where it comes from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from framework.config import ModelConfig
from framework.model.classifier import Classes

_GENERATE = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/directory")
model = AutoModelForCausalLM.from_pretrained("path/to/this/directory")"""
_FILL_MASK = """from transformers import pipeline

fill = pipeline("fill-mask", model="path/to/this/directory")
print(fill("<|endoftext|>The capital of France is<|mask|>."))  # every document begins so in training"""


_CLASSIFY = """from transformers import pipeline

classify = pipeline("text-classification", model="path/to/this/directory", top_k=None)
print(classify("A text, read from its beginning."))"""


def model_card(facts: Mapping[str, Any], config: ModelConfig, classes: Classes | None = None) -> str:
    """Markdown; `facts` are those of `provenance.json`."""
    short = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    short |= {"started from": base["path"]} if (base := facts.get("started_from")) else {}
    rows = "\n".join(f"| {key} | {value} |" for key, value in short.items())
    shape = "\n".join(f"| {field.name} | {getattr(config, field.name)} |" for field in fields(ModelConfig))
    pipeline_tag, example, what = _use(config, classes)
    return f"""---
library_name: transformers
pipeline_tag: {pipeline_tag}
tags: [loam]
---

# {facts.get("run", "model")}

A {facts["family"]} {what} of {facts["parameters"]:,} parameters, made with Loam.

```python
{example}
```

## Provenance

| | |
|---|---|
{rows}

More, such as the configuration of the run, stands in `provenance.json`.

## Shape

| | |
|---|---|
{shape}
"""


def _use(config: ModelConfig, classes: Classes | None) -> tuple[str, str, str]:
    """The task as Hugging Face calls it, an example, and what the model is."""
    if classes is not None:
        which = "any of these classes" if classes.several else "one of these classes"
        return "text-classification", _CLASSIFY, f"classifier ({which}: {', '.join(classes.names)})"
    if config.causal:
        return "text-generation", _GENERATE, "language model"
    return "fill-mask", _FILL_MASK, "encoder"
