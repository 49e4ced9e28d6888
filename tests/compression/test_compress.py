"""Smaller model directories: written in a format of others, read by them and by us as the same numbers."""

import json
import os
import subprocess

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from torch.nn.utils import prune as torch_prune

from framework.compression.job import run
from framework.compression.pruning import prune
from framework.compression.quantization import quantize, scheme_of
from framework.config import CompressConfig, ModelSource, PerplexityConfig
from framework.config.compress import PruningConfig, QuantizationConfig
from framework.errors import UserError
from framework.inference.generation import load_any
from framework.model.huggingface import assemble, integers_of, read_model_directory
from framework.model.integers import Integers, Scheme, from_files, to_files
from tests.finetuning.foundation import write_foundation
from tests.launch import run as start
from tests.model.shapes import random_tokens

SHAPES = {
    "llama": {"hidden_size": 48, "heads": 3, "head_size": 16},
    "qwen3": {"hidden_size": 32, "heads": 2, "head_size": 16, "qk_norm": True},
    "gpt2": {
        "norm": "layernorm",
        "activation": "gelu",
        "position": "learned",
        "heads": 4,
        "hidden_size": 32,
        "head_size": 8,
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        name: write_foundation(tmp_path_factory.mktemp(name) / "model", intermediate_size=64, **shape)
        for name, shape in SHAPES.items()
    }


def compress(source, target, **settings):
    config = CompressConfig(model=ModelSource(str(source)), output=str(target), speed_tokens=4, **settings)
    config.check()
    run(config)
    return target


@pytest.mark.parametrize("columns", [8, 32, 37, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_integers_are_packed_as_compressed_tensors_packs_them(bits, columns):
    values = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (5, columns), dtype=torch.int8)
    held = Integers(values, torch.ones(5, 1))
    files = to_files("a.weight", held, Scheme(bits))
    assert files["a.weight_packed"].equal(pack_to_int32(values, bits))
    _, back = from_files(files, Scheme(bits), "here")
    assert back["a.weight"].values.equal(values)


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_transformers_computes_the_same_from_a_quantized_directory(models, tmp_path, family, name):
    target = compress(models[family], tmp_path / "small", quantization=QuantizationConfig(name))
    facts = json.loads((target / "provenance.json").read_text())
    assert facts["verified_with"] == "transformers"  # which the job held its logits against, to 1e-4
    assert facts["compressed"]["quantization"]["name"] == name
    scheme, held = integers_of(target)
    assert scheme == Scheme(4, 16 if family == "llama" else 32) if name == "int4" else scheme == Scheme(8)
    own = read_model_directory(models[family]).state
    assert set(held) == {n for n in own if n.startswith("blocks.") and own[n].dim() == 2}
    for weight, integers in held.items():
        off = (integers.weight() - own[weight]).abs().unflatten(1, (integers.scale.shape[1], -1))
        limit = 0.5001 if name == "int8" else 4  # hqq leaves large weights further off
        assert (off <= limit * integers.scale.abs()[:, :, None]).all()


def test_computing_with_integers_is_computing_with_what_they_stand_for(models, tmp_path):
    tokens = random_tokens(read_model_directory(models["llama"]).config, 2, 20)
    for name, tolerance in (("int8", 1e-5), ("int4", 1e-5), ("int8_dynamic", 5e-2)):
        target = compress(models["llama"], tmp_path / name, quantization=QuantizationConfig(name))
        model, _ = load_any(target)
        assert type(model.blocks[0].mlp.up.weight.data) is not torch.Tensor
        config, state, _ = read_model_directory(target)
        with torch.no_grad():
            expected = assemble(config, state)(tokens)
            torch.testing.assert_close(model(tokens), expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_files_are_smaller_by_what_the_bits_say(models, tmp_path):
    def size(path):
        return sum(t.nbytes for t in load_file(path / "model.safetensors").values())

    own = read_model_directory(models["llama"]).state
    inner = sum(t.numel() for n, t in own.items() if n.startswith("blocks.") and t.dim() == 2)
    whole = size(models["llama"])
    for name, bits in (("int8", 8), ("int8_dynamic", 8), ("int4", 4 + 32 / 16)):
        target = compress(models["llama"], tmp_path / name, quantization=QuantizationConfig(name))
        expected = whole - inner * (32 - bits) / 8
        assert size(target) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("shape", [(6, 8), (5, 12)])
def test_the_least_weights_become_zero(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    linear = torch.nn.Linear(shape[1], shape[0], bias=False)
    linear.weight.data = weight.clone()
    torch_prune.l1_unstructured(linear, "weight", amount=0.3)
    assert prune(weight, PruningConfig("magnitude", 0.3)).equal(linear.weight)
    pruned = prune(weight, PruningConfig("2:4"))
    fours, was = pruned.view(-1, 4), weight.view(-1, 4)
    assert ((fours != 0).sum(1) == 2).all()
    for kept, four in zip(fours, was, strict=True):
        assert set(kept[kept != 0].tolist()) == set(sorted(four.tolist(), key=abs)[2:])


@pytest.mark.parametrize("family", SHAPES)
def test_pruned_directories_are_those_of_before_with_zeros(models, tmp_path, family):
    target = compress(models[family], tmp_path / "pruned", pruning=PruningConfig("2:4"), skip=["blocks.0.mlp.*"])
    before, after = read_model_directory(models[family]).state, read_model_directory(target).state
    for name, weight in before.items():
        inner = name.startswith("blocks.") and weight.dim() == 2 and not name.startswith("blocks.0.mlp.")
        assert after[name].equal(prune(weight, PruningConfig("2:4")) if inner else weight), name
    assert json.loads((target / "provenance.json").read_text())["verified_with"] == "transformers"
    names = {file.name for file in models[family].iterdir()}
    assert {file.name for file in target.iterdir()} == names


def test_pruned_weights_stay_zero_as_integers(models, tmp_path):
    both = {"pruning": PruningConfig("magnitude", 0.6), "quantization": QuantizationConfig("int8")}
    held = integers_of(compress(models["llama"], tmp_path / "both", **both))[1]
    assert all((integers.values == 0).float().mean() > 0.599 for integers in held.values())


@pytest.mark.slow
def test_the_command_says_what_was_won_and_lost(models, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the river grows. " * 30)
    target = tmp_path / "small"
    done = start(
        "framework.compress",
        *(f"model.path={models['llama']}", f"output={target}", "quantization.name=int8", "speed_tokens=4"),
        f"perplexity.text={{own: {text}}}",
    )
    assert done.returncode == 0, done.stderr
    for row in ("weights on disk, MB", "weights in memory, MB", "tokens written a second", "own/bits per byte"):
        assert row in done.stdout
    written = start("framework.generate", f"model.path={target}", "prompt=the river", "maximum_tokens=4")
    assert written.returncode == 0, written.stderr


BAD = [
    ("gpt2", {"quantization": QuantizationConfig("int8")}, "GPT-2 keeps its layers in a form of its own"),
    ("llama", {"quantization": QuantizationConfig("int4", group=64)}, "64 does not divide the 48 inputs of blocks"),
    ("llama", {"pruning": PruningConfig("2:4"), "skip": ["*"]}, "skip: .* leaves no matrix to change"),
    ("llama", {"pruning": PruningConfig("2:4"), "skip": ["mlp"]}, "skip: 'mlp' matches no matrix"),
    (
        "llama",
        {"quantization": QuantizationConfig("int8"), "perplexity": PerplexityConfig(text={"a": "/nowhere/*.txt"})},
        "perplexity.text.a: .*nowhere",
    ),
]


@pytest.mark.parametrize(("family", "settings", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_what_cannot_be_done_is_told_and_leaves_nothing(models, tmp_path, family, settings, message):
    with pytest.raises(UserError, match=message):
        compress(models[family], tmp_path / "small", **settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"pruning": PruningConfig("2:4", share=0.9)}, "pruning.share"),
        ({"quantization": QuantizationConfig("int8", group=64)}, "quantization.group"),
        ({"quantization": QuantizationConfig("int8_dynamic", scales="range")}, "quantization.scales"),
    ],
    ids=["share", "group", "scales"],
)
def test_what_would_not_count_is_refused(settings, field):
    with pytest.raises(UserError, match=f"^{field}: is given, and .*or leave it out"):
        CompressConfig(ModelSource("a"), "b", **settings).check()


def test_what_a_kill_left_is_removed(models, tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".small.partial-{dead.pid}").mkdir()
    (tmp_path / f".small.partial-{os.getppid()}").mkdir()  # of one that lives
    compress(models["llama"], tmp_path / "small", pruning=PruningConfig("2:4"))
    assert {path.name for path in tmp_path.iterdir()} == {"small", f".small.partial-{os.getppid()}"}


def test_a_directory_is_neither_overwritten_by_itself_nor_quantized_twice(models, tmp_path):
    with pytest.raises(UserError, match=r"output: .* is not what these settings made"):
        compress(models["llama"], models["llama"], quantization=QuantizationConfig("int8"))
    small = compress(models["llama"], tmp_path / "small", quantization=QuantizationConfig("int8"))
    with pytest.raises(UserError, match="is held as integers already"):
        compress(small, tmp_path / "smaller", quantization=QuantizationConfig("int4"))
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match=r"output: .* is not what these settings made"):
        compress(models["llama"], tmp_path / "notes", quantization=QuantizationConfig("int8"))


def test_what_was_made_with_other_settings_is_not_replaced(models, tmp_path):
    small = compress(models["llama"], tmp_path / "small", quantization=QuantizationConfig("int8"))
    compress(models["llama"], small, quantization=QuantizationConfig("int8"))
    with pytest.raises(UserError, match="is not what these settings made"):
        compress(models["llama"], small, pruning=PruningConfig("2:4"))
    assert integers_of(small)


def test_damaged_integers_are_told(models, tmp_path):
    small = compress(models["llama"], tmp_path / "small", quantization=QuantizationConfig("int4"))
    file = small / "model.safetensors"
    tensors = load_file(file)
    layer = "model.layers.0.mlp.up_proj."
    for damage in (
        {n: t for n, t in tensors.items() if n != layer + "weight_packed"},
        {**tensors, layer + "weight_scale": tensors[layer + "weight_scale"][:, :1].expand(-1, 5).contiguous()},
    ):
        save_file(damage, file)
        with pytest.raises(UserError, match=r"the integers of model\.layers\.0\.mlp\.up_proj are incomplete"):
            read_model_directory(small)


def test_hqq_is_nearer_than_the_range_for_weights_of_long_tails():
    weight = torch.randn(16, 128, generator=torch.Generator().manual_seed(1)) ** 3
    off = {
        way: (quantize(weight, QuantizationConfig("int4", 32, way)).weight() - weight).abs().mean()
        for way in ("hqq", "range")
    }
    assert off["hqq"] < off["range"]
    assert scheme_of(QuantizationConfig("int4", 32)) == Scheme(4, 32)
