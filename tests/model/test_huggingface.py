import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from framework.config import ModelConfig
from framework.errors import UserError
from framework.model import huggingface
from framework.model.huggingface import assemble, check_exportable, read_model_directory, write_model_directory
from framework.model.tokenizer import load_tokenizer
from framework.model.transformer import Transformer
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS, GPT2, ROPE_SCALING, random_model, random_tokens

every_shape = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())

THEIRS = {
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt2 inner": ("GPT2", {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "n_inner": 80}),
    "llama": ("Llama", {}),
    "llama tied, biases": ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama rotary": ("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e3, **ROPE_SCALING}}),
    "mistral": ("Mistral", {"sliding_window": 7, "head_dim": 16}),
    "mistral unwindowed": ("Mistral", {"sliding_window": None, "head_dim": 8}),
    "eurobert": ("EuroBert", {"mask_token_id": 10, "pad_token_id": 2, "rope_parameters": {"rope_theta": 2.5e5}}),
    "eurobert tied, biases": (
        "EuroBert",
        {"mask_token_id": 10, "pad_token_id": 2, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 16},
    ),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3 windowed": (
        "Qwen3",
        {
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 0,
            "attention_bias": True,
        },
    ),
}
LLAMA_LIKE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return small_tokenizer.write(tmp_path_factory.mktemp("tokenizer"))


def widened(config: ModelConfig) -> ModelConfig:
    """The shape with a vocabulary that holds the test tokenizer."""
    return ModelConfig(**vars(config) | {"vocabulary_size": 384})


def their_model(name: str, options: dict):
    """A randomly initialised `transformers` model, norms and biases included."""
    transformers = pytest.importorskip("transformers")
    shape = {} if name == "GPT2" else LLAMA_LIKE
    config = getattr(transformers, f"{name}Config")(
        **{"vocab_size": 384, "bos_token_id": 1, "eos_token_id": 1, "initializer_range": 0.15} | shape | options
    )
    kind = {"GPT2": "GPT2LMHeadModel", "EuroBert": "EuroBertForMaskedLM"}.get(name, f"{name}ForCausalLM")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def their_logits(directory, tokens):
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    is_encoder = json.loads((directory / "config.json").read_text())["model_type"] == "eurobert"
    kind = AutoModelForMaskedLM if is_encoder else AutoModelForCausalLM
    return kind.from_pretrained(directory, dtype=torch.float32).eval()(tokens).logits


@pytest.mark.parametrize(("name", "options"), THEIRS.values(), ids=THEIRS.keys())
@torch.no_grad()
def test_their_models_here_and_back(name, options, tmp_path, tokenizer):
    model = their_model(name, options)
    model.save_pretrained(tmp_path / "theirs")
    tokens = torch.randint(384, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = model(tokens).logits

    config, state, _ = read_model_directory(tmp_path / "theirs")
    torch.testing.assert_close(assemble(config, state)(tokens), expected, rtol=0, atol=2e-5)

    facts = write_model_directory(tmp_path / "ours", state, config, tokenizer=tokenizer, provenance={})
    assert facts["verified_with"] == "transformers"
    torch.testing.assert_close(their_logits(tmp_path / "ours", tokens), expected, rtol=0, atol=1e-6)


@every_shape
@torch.no_grad()
def test_our_models_there_and_back(config, tmp_path, tokenizer):
    AutoTokenizer = pytest.importorskip("transformers").AutoTokenizer
    model = random_model(widened(config))
    tokens = random_tokens(model.config, 2, 40)
    write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    torch.testing.assert_close(their_logits(tmp_path / "m", tokens), model(tokens), rtol=0, atol=2e-5)

    read = read_model_directory(tmp_path / "m")
    assert read.config == model.config
    assert read.tokenizer == tmp_path / "m"
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "m"), load_tokenizer(read.tokenizer)
    assert all(theirs.encode(text) == ours.encode(text) for text in small_tokenizer.texts())
    assert theirs.eos_token_id == 1
    assert read.state.keys() == model.state_dict().keys()
    assert all(torch.equal(read.state[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture
def written(tmp_path, tokenizer):
    """A sound Llama directory, and the model in it."""
    model = random_model(widened(CONFIGS["llama"]))
    directory = tmp_path / "model"
    write_model_directory(directory, model.state_dict(), model.config, tokenizer=tokenizer, provenance={"tokens": 7})
    return directory, model


def test_what_a_directory_holds(written):
    directory, model = written
    assert sorted(file.name for file in directory.iterdir()) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "provenance.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    assert [entry.name for entry in directory.parent.iterdir()] == ["model"]
    facts = json.loads((directory / "provenance.json").read_text())
    assert facts["tokens"] == 7
    assert facts["family"] == "llama"
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["maximum_difference"] <= 1e-4
    ids = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 2}
    assert json.loads((directory / "generation_config.json").read_text()) == ids
    assert ids.items() <= json.loads((directory / "config.json").read_text()).items()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_above_the_limit_are_sharded(tmp_path, tokenizer, dtype):
    model = random_model(widened(CONFIGS["gpt2 untied"]))
    directory = tmp_path / "model"
    write_model_directory(
        directory, model.state_dict(), model.config, tokenizer=tokenizer, provenance={}, dtype=dtype, shard_bytes=30_000
    )
    files = sorted(directory.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(p.numel() for p in model.parameters()) * dtype.itemsize
    state = read_model_directory(directory).state
    assert all(torch.equal(state[name], tensor.to(dtype)) for name, tensor in model.state_dict().items())

    files[1].unlink()
    with pytest.raises(UserError, match=f"{files[1].name}: is missing"):
        read_model_directory(directory)


def test_without_transformers_our_own_reader_verifies(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    find_spec = huggingface.importlib.util.find_spec
    monkeypatch.setattr(
        huggingface.importlib.util, "find_spec", lambda name: None if name == "transformers" else find_spec(name)
    )
    model = random_model(widened(CONFIGS["qwen3"]))
    facts = write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    assert facts["verified_with"] == "loam"
    assert not (tmp_path / "m" / "tokenizer.json").exists()


def test_a_directory_that_reads_back_differently_is_refused_and_the_old_one_kept(written, tokenizer, monkeypatch):
    directory, model = written
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    to_json = huggingface.to_json
    other = {"rope_theta": 500.0}
    monkeypatch.setattr(huggingface, "to_json", lambda config, classes: to_json(config, classes) | other)
    with pytest.raises(UserError, match=r"logits differ by .* was not written"):
        write_model_directory(directory, model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before
    assert [entry.name for entry in directory.parent.iterdir()] == ["model"]


def test_a_tokenizer_that_transformers_reads_otherwise_is_refused(written, tmp_path, tokenizer):
    directory, model = written
    source = tmp_path / "source"
    source.mkdir()
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (source / name).write_bytes((directory / name).read_bytes())
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(settings | {"add_prefix_space": True}))
    with pytest.raises(UserError, match=r"tokenizer\.model: transformers reads .* as other ids"):
        write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=source, provenance={})
    assert not (tmp_path / "m").exists()


def test_a_sound_directory_replaces_the_old_one_but_no_other_thing(written, tokenizer):
    directory, model = written
    state = {name: tensor * 1.5 for name, tensor in model.state_dict().items()}
    write_model_directory(directory, state, model.config, tokenizer=tokenizer, provenance={"tokens": 8})
    assert json.loads((directory / "provenance.json").read_text())["tokens"] == 8
    assert torch.equal(read_model_directory(directory).state["norm.weight"], state["norm.weight"])
    assert [entry.name for entry in directory.parent.iterdir()] == ["model"]

    (directory / "config.json").unlink()
    with pytest.raises(UserError, match="is no model directory"):
        write_model_directory(directory, state, model.config, tokenizer=tokenizer, provenance={})
    assert (directory / "README.md").exists()


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path, tokenizer):
    model = random_model(CONFIGS["llama"])
    with pytest.raises(UserError, match=r"model\.vocabulary_size: is 96, but .* has 360 ids"):
        write_model_directory(tmp_path / "m", model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_shape_is_our_mistake(tmp_path, tokenizer):
    model = random_model(widened(CONFIGS["llama"]))
    state = model.state_dict()
    del state["norm.weight"]
    with pytest.raises(ValueError, match=r"norm\.weight"):
        write_model_directory(tmp_path / "m", state, model.config, tokenizer=tokenizer, provenance={})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layernorm"}, r"model\.norm=layernorm: no Hugging Face family .* llama, which needs model\.norm=rms"),
        ({"activation": "gelu"}, r"model\.activation=gelu.*needs model\.activation=swiglu"),
        ({"attention_output_bias": True}, r"attention_output_bias=True.*needs model\.attention_output_bias=False"),
        ({"qk_norm": True, "mlp_bias": True}, r"needs model\.qk_norm=False"),
        ({"rope_scaling": {"factor": 2.0}}, r"needs model\.rope_scaling=the keys factor, low_freq_factor"),
        ({**GPT2, "key_value_heads": 2}, r"model\.key_value_heads=2: .* gpt2, which needs model\.key_value_heads=8"),
        ({"causal": False, "mlp_bias": True}, r"model\.mlp_bias=True: .* eurobert, which needs model\.mlp_bias=False"),
        ({**GPT2, "causal": False}, r"gpt2, which needs model\.causal=True"),
        ({**GPT2, "sliding_window": 5}, r"gpt2, which needs model\.sliding_window=0"),
    ],
)
def test_models_of_no_family_are_told_before_training(changes, message):
    with pytest.raises(UserError, match=message):
        check_exportable(ModelConfig(vocabulary_size=512, **changes))


@every_shape
def test_every_shape_of_the_tests_is_exportable(config):
    check_exportable(config)


def edit(directory, **changes):
    file = directory / "config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in (data | changes).items() if value != "absent"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt_neox"}, r"config\.json: model_type is 'gpt_neox'; supported are llama, mistral"),
        ({"hidden_size": "absent"}, r"config\.json: hidden_size is missing"),
        ({"hidden_size": "32"}, r"config\.json: hidden_size is '32'; it must be a number"),
        ({"num_attention_heads": 5, "head_dim": "absent"}, r"config\.json: model\.heads: 5 heads do not divide"),
        ({"num_attention_heads": 0}, r"config\.json: model\.heads: is 0"),
        ({"hidden_act": "relu"}, r"config\.json: hidden_act='relu' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"rope_type='linear' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, r"low_freq_factor is missing"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5 is not supported"),
        ({"quantization_config": {"bits": 4}}, r"config\.json: quantization_config is of another kind"),
        ({"num_hidden_layers": 3}, r"tensor model\.layers\.2\.input_layernorm\.weight is missing"),
        ({"num_hidden_layers": 1}, r"tensor model\.layers\.1\..* has no place in a llama model"),
        ({"vocab_size": 385}, r"embed_tokens\.weight is \[384, 32\], but config\.json makes it \[385, 32\]"),
        ({"tie_word_embeddings": False}, r"tensor lm_head\.weight is missing"),
    ],
)
def test_foreign_settings_are_told(written, changes, message):
    edit(written[0], **changes)
    with pytest.raises(UserError, match=message):
        read_model_directory(written[0])


def test_damaged_files_are_told(written, tmp_path):
    directory, _ = written
    weights = directory / "model.safetensors"
    whole = weights.read_bytes()
    for cut in (0, 4, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"model\.safetensors: damaged or cut short"):
            read_model_directory(directory)
    weights.unlink()
    with pytest.raises(UserError, match="has neither model"):
        read_model_directory(directory)
    (directory / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UserError, match="is no index of weights"):
        read_model_directory(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: is no readable json"):
        read_model_directory(directory)
    (directory / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: is missing"):
        read_model_directory(directory)
    with pytest.raises(UserError, match="is no directory"):
        read_model_directory(tmp_path / "nowhere")


def test_rotary_settings_are_read_in_the_old_and_the_new_place(written):
    directory, _ = written
    scaling = {"rope_type": "llama3", **ROPE_SCALING}
    edit(directory, rope_theta=7.0, rope_scaling=scaling)
    old = read_model_directory(directory).config
    edit(directory, rope_theta="absent", rope_scaling="absent", rope_parameters={"rope_theta": 7.0, **scaling})
    assert read_model_directory(directory).config == old
    assert (old.rope_theta, old.rope_scaling) == (7.0, ROPE_SCALING)


def test_checkpoints_of_the_bare_model_and_with_constants_are_read(tmp_path, tokenizer):
    model = random_model(widened(CONFIGS["gpt2"]))
    directory = tmp_path / "m"
    write_model_directory(directory, model.state_dict(), model.config, tokenizer=tokenizer, provenance={})
    file = directory / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor.clone() for name, tensor in load_file(file).items()}
    save_file(tensors | {"h.0.attn.bias": torch.ones(1, 1, 64, 64)}, file)
    state = read_model_directory(directory).state
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_assembling_initialises_nothing():
    model = random_model(CONFIGS["gpt2"])
    state = model.state_dict()
    again = assemble(model.config, state)
    assert isinstance(again, Transformer)
    assert not again.training
    assert again.norm.weight.data_ptr() == state["norm.weight"].data_ptr()
