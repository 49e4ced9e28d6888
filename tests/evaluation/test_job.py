"""The command as a user starts it: the same files on any number of ranks, nothing done twice, mistakes in one line."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from framework import evaluate
from framework.config import EvaluateConfig, MemorizationConfig, PerplexityConfig, TrackerConfig
from framework.errors import UserError
from framework.evaluation.job import run as evaluate_in_process
from framework.evaluation.models import names_of
from tests.evaluation.conftest import write_model
from tests.launch import run, start_ranks
from tests.model import small_tokenizer
from tests.model.shapes import CONFIGS
from tests.training.test_tracker import wandb_records


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    path = tmp_path_factory.mktemp("notes") / "notes.jsonl"
    path.write_text("".join(json.dumps({"text": f"{text} the river"}) + "\n" for text in small_tokenizer.texts(40)))
    return path


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, model, second_model, foreign_model, notes, data):
    """Output directories by number of ranks: one as this process, on a thread as torchrun gives each of two."""
    found = {ranks: tmp_path_factory.mktemp(f"ranks-{ranks}") / "evaluation" for ranks in (1, 2)}
    models = [model, second_model, foreign_model]
    overrides = {
        "perplexity.data": data,
        "perplexity.text.notes": notes,
        "memorization.data": data,
        "batch_tokens": 600,
    }
    overrides |= {"memorization.prefix_tokens": 5, "memorization.continuation_tokens": 5, "memorization.passages": 60}
    overrides |= {"output": found[2], "models": f"[{','.join(map(str, models))}]"}
    done = run("framework.evaluate", *(f"{name}={value}" for name, value in overrides.items()), ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    asked = config(
        found[1], models, batch_tokens=600, tracker=TrackerConfig(name="wandb", mode="offline"),
        perplexity=PerplexityConfig(data=str(data), text={"notes": str(notes)}),
        memorization=MemorizationConfig(str(data), prefix_tokens=5, continuation_tokens=5, passages=60),
    )  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        evaluate_in_process(asked)
    finally:
        torch.set_num_threads(threads)
    (found[2] / "said.txt").write_text(done.stdout)
    return found


def config(output, models, **options):
    return EvaluateConfig(output=str(output), models=[str(model) for model in models], **options)


def facts(folder):
    results = json.loads((folder / "results.json").read_text())
    del results["config"]["output"], results["config"]["tracker"]
    return results


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one_to_the_last_bit(outputs):
    assert facts(outputs[1]) == facts(outputs[2])
    names = sorted(path.name for path in (outputs[1] / "outcomes").iterdir())
    assert len(names) == 3 * 2 + 1
    for name in names:  # with what each document came to
        assert (outputs[1] / "outcomes" / name).read_bytes() == (outputs[2] / "outcomes" / name).read_bytes()


def test_results_say_what_they_are_of(outputs, model):
    results = facts(outputs[1])
    assert results["schema_version"] == 1
    assert [one["name"] for one in results["models"]] == ["one", "two", "foreign"]
    assert results["models"][0]["path"] == str(model)
    assert results["models"][0]["family"] == "llama"
    assert results["models"][2]["family"] == "gpt2"
    for row in results["results"]:
        assert row["count"] > 0
        assert row["low"] <= row["value"] <= row["high"] or row["count"] == 1
        assert row["how"]
    compared = {(one["name"], one["second"]) for one in results["comparison"]}
    assert ("perplexity/notes/bits_per_byte", "foreign") in compared
    assert not any(name.endswith("nats_per_token") for name, _ in compared)
    assert not any("memorization" in name and other == "foreign" for name, other in compared)  # other passages


def test_the_page_shows_every_number_and_needs_nothing_else(outputs):
    page = (outputs[1] / "report.html").read_text()
    for row in facts(outputs[1])["results"]:
        assert f"<td>{row['count']:,} {row['of']}</td>" in page
    assert page.count("<tr>") == 4 + len(facts(outputs[1])["results"]) + len(facts(outputs[1])["comparison"]) + 3
    assert "default-src 'none'" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!#)', page)


def test_the_table_on_the_console_has_them_all(outputs):
    said = (outputs[2] / "said.txt").read_text()
    for row in facts(outputs[1])["results"]:
        assert row["name"] in said
    assert "p, Holm" in said


def test_wandb_has_every_number(outputs):
    (file,) = (outputs[1] / "wandb").glob("offline-run-*/run-*.wandb")
    summary = {}
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "summary":
            for item in record.summary.update:
                summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    for row in facts(outputs[1])["results"]:
        assert summary[f"{row['model']}/{row['name']}"] == row["value"]


def test_a_second_start_redoes_nothing_and_a_third_only_what_is_new(tmp_path, model, second_model, notes, capsys):
    perplexity = PerplexityConfig(text={"notes": str(notes)}, documents=9)
    output = tmp_path / "evaluation"
    evaluate_in_process(config(output, [model], perplexity=perplexity))
    before = {path: path.stat().st_mtime_ns for path in (output / "outcomes").glob("*-*")}
    first = (output / "results.json").read_bytes()
    assert "one: perplexity\n" in capsys.readouterr().out
    evaluate_in_process(config(output, [model], perplexity=perplexity))
    assert "one: perplexity is done" in capsys.readouterr().out
    assert (output / "results.json").read_bytes() == first
    evaluate_in_process(config(output, [model, second_model], perplexity=perplexity))
    said = capsys.readouterr().out
    assert "one: perplexity is done" in said
    assert "two: perplexity\n" in said
    evaluate_in_process(config(output, [model], perplexity=PerplexityConfig(text={"notes": str(notes)}, documents=8)))
    assert "one: perplexity\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_damaged_outcome_is_computed_anew(tmp_path, model, notes, capsys):
    asked = config(tmp_path, [model], perplexity=PerplexityConfig(text={"notes": str(notes)}))
    evaluate_in_process(asked)
    first = (tmp_path / "results.json").read_bytes()
    (file,) = (path for path in (tmp_path / "outcomes").iterdir() if path.name != "schema.json")
    file.write_text(file.read_text()[:-100])
    evaluate_in_process(asked)
    assert "is done" not in capsys.readouterr().out
    assert (tmp_path / "results.json").read_bytes() == first


def test_other_weights_are_another_model(tmp_path, model, second_model, notes, capsys):
    copy = shutil.copytree(model, tmp_path / "copy")
    asked = config(tmp_path / "out", [copy], perplexity=PerplexityConfig(text={"notes": str(notes)}))
    evaluate_in_process(asked)
    shutil.copy(second_model / "model.safetensors", copy / "model.safetensors")
    evaluate_in_process(asked)
    assert "is done" not in capsys.readouterr().out


def test_models_are_named_after_their_runs_unless_two_agree():
    assert names_of(["runs/demo/model", "runs/other/model/"]) == ["demo", "other"]
    assert names_of(["a/qwen", "b/qwen", "c"]) == ["a/qwen", "b/qwen", "c"]


@pytest.fixture(scope="module")
def odd_models(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("odd")
    encoder = CONFIGS["encoder"]
    encoder.vocabulary_size = 360
    write_model(folder / "encoder", encoder)
    for name, missing in (("weightless", "model.safetensors"), ("wordless", "tokenizer.model")):
        shutil.copytree(model, folder / name)
        (folder / name / missing).unlink()
    (folder / "wordless" / "tokenizer.json").unlink(missing_ok=True)
    shutil.copytree(model, folder / "shapeless")
    (folder / "shapeless" / "config.json").unlink()
    return folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "nothing: is no directory; give a model directory"),
        ("shapeless", r"config\.json: is missing"),
        ("weightless", r"has neither model\.safetensors nor"),
        ("wordless", r"has neither tokenizer\.model nor tokenizer\.json"),
        ("encoder", "is a masked language model, which continues no text"),
    ],
)
def test_a_directory_that_is_no_causal_model(odd_models, name, message, tmp_path, notes):
    text = PerplexityConfig(text={"notes": str(notes)})
    with pytest.raises(UserError, match=message):
        evaluate_in_process(config(tmp_path, [odd_models / name], perplexity=text))


def test_a_tokenizer_with_more_ids_than_embeddings(tmp_path, notes, model):
    small = write_model(tmp_path / "small")
    weights = load_file(small / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:300].clone()
    save_file(weights, small / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(settings | {"vocab_size": 300}))
    with pytest.raises(UserError, match="its tokenizer has 360 ids, but the model 300 embeddings"):
        evaluate_in_process(config(tmp_path / "out", [small], perplexity=PerplexityConfig(text={"n": str(notes)})))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"perplexity\.text\.notes: .* matches no file"),
        (b"", "has no document with text in it"),
        (b'\n{"text": ""}\n', "has no document with text in it"),
        (b'{"text": "a"}\nnonsense\n', r"notes\.jsonl:2: is no JSON object"),
        (b'{"body": "a"}\n', r"notes\.jsonl:1: has no field 'text'"),
        (b'{"text": 7}\n', r"notes\.jsonl:1: 'text' is no text"),
        (b"[1]\n", r"notes\.jsonl:1: is no JSON object"),
        (b'{"text": "\xff"}\n', r"notes\.jsonl: cannot be read as UTF-8 text"),
    ],
)
def test_files_that_are_no_documents(content, message, tmp_path, model):
    file = tmp_path / "notes.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        evaluate_in_process(config(tmp_path, [model], perplexity=PerplexityConfig(text={"notes": str(file)})))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"perplexity\.data: nothing is asked for"),
        ({"perplexity": PerplexityConfig(data="/nowhere")}, r"/nowhere/tokens/manifest\.json: No such file"),
        (
            {"memorization": MemorizationConfig(text={"a": "/nowhere/*.txt"})},
            r"memorization\.text\.a: .* matches no",
        ),
    ],
)
def test_data_that_are_not_there(options, message, tmp_path, model):
    with pytest.raises(UserError, match=message):
        evaluate_in_process(config(tmp_path, [model], **options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("output=o", "model.path: is missing; give model.path=DIRECTORY"),
        ("output=o model.path=a models=[b]", "model.path: and models are both given"),
        ("output=o models=[a,a]", "models: names a twice"),
        ("model.path=a", "output: is missing"),
        ("output=o model.path=a perplexity.stride=9 perplexity.context=4", "perplexity.stride: 9 exceeds"),
        ("output=o model.path=a perplexity.row_length=9 perplexity.context=4", "perplexity.row_length: is for whole"),
        ("output=o model.path=a memorization.held_out.b=c", "memorization.held_out.b: has no text"),
        ("output=o model.path=a tracker=tensorboard", "tracker.name: is tensorboard; choose none | wandb"),
        ("output=o model.path=a batch_tokens=0", "batch_tokens: is 0"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evaluate", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        evaluate.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"loam: error: {message}")


def test_every_rank_ends_when_a_file_is_bad(tmp_path, model):
    (tmp_path / "notes.jsonl").write_text("nonsense\n")
    overrides = (f"model.path={model}", f"perplexity.text.notes={tmp_path}/notes.jsonl", f"output={tmp_path}/out")
    processes = start_ranks("framework.evaluate", *overrides, ranks=2)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert re.match(r"loam: error: \[rank 0\] .*notes\.jsonl:1: is no JSON object.*\n$", said[0])
    assert said[1] == ""
