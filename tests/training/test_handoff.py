"""The model directory at the end of a run, read by transformers, safetensors and SentencePiece."""

import hashlib
import json

import pytest
import sentencepiece
import torch
import yaml
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import framework
from framework.model.huggingface import assemble, read_model_directory
from tests.launch import SMALL, records, run
from tests.model import small_tokenizer
from tests.training.conftest import TO_THE_END

THEIR_NAMES = {  # Llama's names in transformers
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}


def their_name(ours: str) -> str:
    if not ours.startswith("blocks."):
        return THEIR_NAMES[ours]
    _, layer, part = ours.split(".", 2)
    return f"model.layers.{layer}.{THEIR_NAMES[part]}"


def test_the_weights_are_those_of_the_last_checkpoint(finished):
    checkpoint = load_file(finished / "checkpoints" / "step-00000012" / "rank-00000.safetensors")
    expected = {
        their_name(key.removesuffix("/master")): value for key, value in checkpoint.items() if key.endswith("/master")
    }
    found = load_file(finished / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert (found[name] == value).all()


def test_transformers_gives_the_same_logits(finished):
    config, state, _ = read_model_directory(finished / "model")
    tokens = torch.randint(config.vocabulary_size, (3, 40), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        ours = assemble(config, state)(tokens)
        theirs = AutoModelForCausalLM.from_pretrained(finished / "model", dtype=torch.float32)(tokens).logits
    assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, theirs.abs().max().item())
    assert ours.std() > 0.01


def test_transformers_gives_the_same_ids(finished, data):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(data / "tokenizer" / "tokenizer.model"))
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    for text in small_tokenizer.texts():
        ids = processor.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == processor.piece_to_id("<|endoftext|>") == 1


def test_the_provenance_is_true(finished, data):
    facts = json.loads((finished / "model" / "provenance.json").read_text())
    last = records(finished)[-1]
    assert (facts["run"], facts["step"], facts["tokens_seen"]) == ("finished", 12, 12 * 16 * 32)
    assert facts["data_manifest_sha256"] == sha256(data / "tokens" / "manifest.json")
    assert facts["tokenizer_sha256"] == sha256(data / "tokenizer" / "tokenizer.model")
    assert facts["loam_version"] == framework.__version__
    assert facts["corpora"] == {name: {"source": "random", "licence": "CC0-1.0"} for name in ("web", "books")}
    for name in ("web", "books"):
        expected = {key: last[f"eval/{name}/{key}"] for key in ("loss", "bits_per_byte")}
        assert facts["held_out"][name] == expected
    weights = load_file(finished / "model" / "model.safetensors")
    assert facts["parameters"] == sum(weight.size for weight in weights.values())
    assert (facts["dtype"], facts["verified_with"]) == ("float32", "transformers")
    asked = yaml.safe_load((finished / "config.yaml").read_text())
    for group in ("run", "data", "optimizer", "schedule", "zero", "batch"):
        assert facts["config"][group] == asked[group]


def test_the_summary_agrees_with_the_records(finished):
    facts, steps = json.loads((finished / "summary.json").read_text()), records(finished)
    assert (facts["steps"], facts["tokens"], facts["loss"]) == (12, 12 * 16 * 32, steps[-1]["train/loss"])
    for name, weight in (("web", 60), ("books", 16)):
        corpus = facts["corpora"][name]
        assert corpus["share_asked"] == pytest.approx(weight / 76)
        assert corpus["share_realised"] == pytest.approx(steps[-1][f"data/share/{name}"])
        assert corpus["bits_per_byte"] == steps[-1][f"eval/{name}/bits_per_byte"]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(directory):
    """Hash of every file but the logs, which tell of every start."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.parent.name != "log"]
    return {path.relative_to(directory).as_posix(): sha256(path) for path in files}


@pytest.mark.slow
def test_the_same_command_again_finds_the_run_complete_and_changes_nothing(finished, data):
    before = contents(finished)
    assert {"config.yaml", "metrics.jsonl", "summary.json", "model/config.json"} <= before.keys()
    places = (f"run.directory={finished.parent}", "run.name=finished", f"data.path={data}")
    done = run("framework.pretrain", *SMALL, *places, *TO_THE_END, "optimizer.learning_rate=0.5")
    assert done.returncode == 0, done.stderr
    assert "is 0.5, which a run that is complete does not take up" in done.stdout
    assert f"{finished}: complete and sound at step 12, nothing to do" in done.stdout
    assert contents(finished) == before
