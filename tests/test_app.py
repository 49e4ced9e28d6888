"""Command lines, right and wrong: a mistake is one line that names the field and the remedy, and exit code 2.

Most mistakes are made within this process, by calling the entry point; what depends on processes is
started as a user starts it.
"""

import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from framework import generate, prepare, pretrain
from framework.app import entry
from framework.composition import field_names, given, run_hydra
from framework.config import GenerateConfig, PretrainConfig
from tests.launch import ENVIRONMENT, ROOT, SMALL, run, start_ranks
from tests.synthetic import make_data

MISTAKES = [  # entry point, command line, how the line begins, what it offers
    (pretrain, "bogus=1", "bogus: there is no such field", "--help"),
    (pretrain, "optimizer.lerning_rate=1", "optimizer.lerning_rate:", "did you mean optimizer.learning_rate?"),
    (pretrain, "learning_rate=1", "learning_rate:", "did you mean optimizer.learning_rate?"),
    (pretrain, "modle=tiny", "modle:", "did you mean model?"),
    (pretrain, "+optimizer.nesterov=1", "optimizer.nesterov: there is no such field", ""),
    (pretrain, "batch.micro=four", "batch.micro: Value 'four' of type 'str'", "Integer"),
    (pretrain, "data.weights.web=most", "data.weights.web: Value 'most'", "Float"),
    (pretrain, "model.layers=null", "field 'model.layers' is not Optional", "--help"),
    (pretrain, "model=enormous", "model: there is no 'enormous'", "| tiny"),
    (pretrain, "zero=2", "zero: there is no '2'", "stage0 | stage1 | stage2 | stage3"),
    (pretrain, "zero=null", "zero: there is no 'null'", "stage0 | stage1 | stage2 | stage3"),
    (pretrain, "optimizer.learning_rate=[1", "optimizer.learning_rate=[1: cannot be understood", "field=value"),
    (pretrain, "1e-3", "1e-3: cannot be understood", "field=value"),
    (pretrain, "batch.sequences=8,16", "Ambiguous value for argument 'batch.sequences=8,16'", "--multirun"),
    (pretrain, "run.name=${nothing}", "run.name: Interpolation key 'nothing' not found", "--help"),
    (pretrain, "--steps 100", "unrecognized arguments: --steps", "NAME=VALUE"),
    (pretrain, "--config-name=bogus", "Cannot find primary config 'bogus'", "--help"),
    (
        pretrain,
        "model.heads=7 model.hidden_size=160",
        "model.heads: 7 heads do not divide model.hidden_size=160",
        "1, 2, 4, 5, 8",
    ),
    (
        pretrain,
        "data.sequence_length=4096 model.maximum_positions=1024",
        "data.sequence_length: 4096 exceeds",
        "model.maximum_positions",
    ),
    (pretrain, "batch.sequences=65 data.lanes=64", "batch.sequences: 65 is neither a multiple nor", "use 64"),
    (
        pretrain,
        "batch.micro=5 batch.sequences=64",
        "batch.micro: 5 does not divide the 64 sequences",
        "1, 2, 4, 8, 16, 32",
    ),
    (pretrain, "objective=masked", "objective: there is no 'masked'", "causal_lm | fill_in_middle"),
    (pretrain, "objective.rate=0.5", "objective.rate: is 0.5, which", "objective=fill_in_middle"),
    (pretrain, "objective.name=fill_in_middle", "objective.rate: is 0,", "objective=causal_lm"),
    (pretrain, "objective=fill_in_middle objective.spm_rate=2", "objective.spm_rate: is 2.0", "between 0 and 1"),
    (pretrain, "objective.masked=1", "objective.masked: is 1.0, which", "objective=masked_lm"),
    (
        pretrain,
        "objective=masked_lm objective.random=0.5",
        "objective.masked: and objective.random come to 1.5",
        "at most",
    ),
    (pretrain, "objective=masked_lm", "model.causal: is true, and with it", "model=encoder_tiny"),
    (pretrain, "model=encoder_tiny", "model.causal: is false, and with it", "objective=masked_lm"),
    (pretrain, "model=encoder_tiny model.sliding_window=8", "model.sliding_window: is 8, and", "set it to 0"),
    (
        pretrain,
        "model.from=/nowhere",
        "model.from: /nowhere/config.json: is missing",
        "give a complete model directory",
    ),
    (pretrain, "precision=bf16 zero=stage0", "precision.dtype: bf16 with zero.stage=0", "zero=stage1"),
    (pretrain, "precision.dtype=fp16", "precision.dtype: unknown value 'fp16'", "fp32 | bf16"),
    (pretrain, "optimizer.learning_rate=nan", "optimizer.learning_rate: is nan", "greater than 0"),
    (pretrain, "optimizer.learning_rate=inf", "optimizer.learning_rate: is inf", "greater than 0"),
    (pretrain, "schedule.decay_steps=-5", "schedule.decay_steps: is -5", "not be negative"),
    (
        pretrain,
        "schedule.warmup_steps=2000 schedule.steps=100",
        "schedule.warmup_steps: warm-up (2000)",
        "lengthen the run",
    ),
    (pretrain, "guard.window=1", "guard.window: is 1", "4 or more"),
    (pretrain, "samples.prompts=[3]", "samples.prompts: 3 is no text", """write '["3"]'"""),
    (pretrain, "samples.prompts=[text,null]", "samples.prompts: None is no text", "write"),
    (pretrain, "run.name=a/b", "run.name: 'a/b' is no directory name", "letters"),
    (prepare, "corpus=[sample_wob]", "corpus: there is no 'sample_wob'", "sample_web | sample_webtext"),
    (prepare, "corpus=[]", "corpora: there is none", "corpus=[sample_web]"),
    (prepare, "corpora.web.reader=pdf", "corpora.web.reader: unknown value 'pdf'", "warc | mediawiki"),
    (prepare, "corpora.web.paths=/x", "corpora.web.paths: takes a list", "[VALUE,VALUE]"),
    (prepare, "corpora.x={}", "x: takes fields one by one", "x.FIELD=VALUE"),
    (
        prepare,
        "decontamination.evaluation=[{pth:/x}]",
        "decontamination.evaluation: an entry has 'pth'",
        "did you mean path?",
    ),
    (
        generate,
        "model.path=x postprocess=[{x:1}]",
        "postprocess: an entry has 'x'",
        "they are strip, regex, replacement",
    ),
    (generate, "model.path=x prompt=a template=loam", "template: is of conversations", "input="),
    (generate, "model.path=x failed=retry", "failed: is retry, and postprocess has nothing", "give postprocess"),
    (generate, "model.path=x stop=['']", "stop: has an empty text", "leave it out"),
    (generate, "prompt=Hello", "model.path: is missing", "runs/demo/model"),
    (generate, "model.path=x top_p=2", "top_p: is 2.0", "(0, 1]"),
]


@pytest.mark.parametrize(("program", "arguments", "problem", "remedy"), MISTAKES, ids=[m[1] for m in MISTAKES])
def test_a_mistake_is_one_line(program, arguments, problem, remedy, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", [program.__name__, *arguments.split()])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which the program sets, as it does how it takes signals
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit:
        program.main()
    captured = capsys.readouterr()
    assert exit.value.code == 2
    assert captured.err.startswith(f"loam: error: {problem}")
    assert captured.err.count("\n") == 1
    assert remedy in captured.err
    assert captured.out == ""
    assert not list(tmp_path.iterdir())


def test_help_of_which_little_is_read_says_no_more(monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["pretrain", "--help"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as exit:
            pretrain.main()
    assert exit.value.code == 0
    assert capfd.readouterr() == ("", "")


def test_what_an_experiment_sets_is_given_as_is_what_the_command_line_sets(tmp_path, monkeypatch):
    (tmp_path / "experiment").mkdir()
    long = "# @package _global_\nmodel:\n  layers: 3\n  maximum_positions: 4096\nrun:\n  seed: 1\n"
    (tmp_path / "experiment" / "long.yaml").write_text(long)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    found = []
    for experiment in ("long", "[demo,long]"):
        arguments = ["--config-dir", str(tmp_path), f"experiment={experiment}", "zero=stage1", "run.name=x"]
        monkeypatch.setattr(sys, "argv", ["pretrain", *arguments])
        run_hydra("pretrain", PretrainConfig, lambda _: found.append(given()))
    set_here = {"model.layers", "model.maximum_positions", "run.seed", "experiment", "zero", "run.name"}
    assert found[0] == set_here
    assert found[1] > set_here | {"schedule.steps", "samples.prompts"}


def our_lines(stderr: str) -> list[str]:
    """The lines of stderr that are ours; none may come from a traceback through our code, or from an abort."""
    assert f'File "{ROOT / "framework"}' not in stderr
    assert "terminate called" not in stderr
    return [line for line in stderr.splitlines() if line.startswith("loam: error:")]


@pytest.mark.parametrize(
    ("module", "arguments", "named"),
    [
        ("framework.pretrain", ["data.path=/nowhere"], "/nowhere/tokens/manifest.json: No such file"),
        ("framework.generate", ["model.path=/nowhere"], "/nowhere: is no directory"),
        ("framework.pretrain", ["run.directory=/dev/null"], "run.directory: cannot write /dev/null/first"),
    ],
)
def test_a_missing_place_is_one_line(module, arguments, named, tmp_path):
    done = run(module, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == our_lines(done.stderr)
    assert len(our_lines(done.stderr)) == 1
    assert named in done.stderr


@pytest.mark.parametrize(
    ("mistake", "named"),
    [
        pytest.param("model.heads=7", "[rank 0] model.heads: 7 heads", marks=pytest.mark.slow),
        ("data.path=/nowhere", "[rank 0] /nowhere/tokens/manifest.json: No such file"),
    ],
)
def test_every_rank_leaves_with_code_2_and_one_speaks(mistake, named, tmp_path):
    ranks = start_ranks("framework.pretrain", mistake, f"run.directory={tmp_path}", "--local_rank=0", ranks=2)
    (_, line), (_, silence) = [rank.communicate(timeout=100) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2]
    assert line.startswith(f"loam: error: {named}")
    assert line.count("\n") == 1
    assert silence == ""


@pytest.mark.slow
def test_ranks_that_cannot_share_the_batch(tmp_path):
    done = run("framework.pretrain", f"run.directory={tmp_path}", "batch.sequences=64", ranks=3)
    assert done.returncode != 0
    (line,) = our_lines(done.stderr)
    assert line.endswith("batch.sequences: 64 cannot be shared by 3 ranks; use a multiple of 3")
    assert not list(tmp_path.iterdir())


def test_help_lists_every_group_and_field():
    done = run("framework.pretrain", "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    groups = [group.name for group in (ROOT / "configs").iterdir() if group.is_dir()]
    listed = {group for group in groups if re.search(rf"^{group}: \w+", done.stdout, re.M)}
    assert set(groups) - listed == {"adapter", "corpus", "executor", "task", "tokenizer"}  # of other entry points
    for name in field_names(PretrainConfig):
        assert re.search(rf"\b{name.rsplit('.', 1)[-1]}:", done.stdout), name


def test_the_configuration_is_shown_as_it_would_be_used():
    done = run(
        "framework.pretrain", "--cfg", "job", "--local_rank=0", "model=gpt2_124m", "zero=stage3", "model.layers=3"
    )
    assert done.returncode == 0
    shown = yaml.safe_load(done.stdout)
    preset = yaml.safe_load((ROOT / "configs" / "model" / "gpt2_124m.yaml").read_text())
    assert shown["model"].items() >= {**preset, "layers": 3}.items()
    assert shown["zero"]["stage"] == 3


@pytest.mark.slow
def test_a_sweep_under_a_launcher_makes_one_run_directory_a_trial(tmp_path):
    data = make_data(tmp_path / "data", {"web": 60})
    places = (f"data.path={data}", f"run.directory={tmp_path / 'runs'}", "run.name=sweep")
    overrides = (*SMALL, *places, "run.stop_after=1", "optimizer.learning_rate=0.001,0.002", "--multirun")
    done = run("framework.pretrain", *overrides, ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"data", "runs"}
    own, *runs = sorted((tmp_path / "runs").iterdir())
    assert [own.name, *(path.name for path in runs)] == ["sweep", "sweep-0", "sweep-1"]
    assert sorted(path.name for path in own.iterdir()) == ["sweep.html", "sweep.json", "sweep.lock"]
    for path, rate in zip(runs, (0.001, 0.002), strict=True):
        assert yaml.safe_load((path / "config.yaml").read_text())["optimizer"]["learning_rate"] == rate
        assert sorted(log.name for log in (path / "log").iterdir()) == ["rank-00000.log", "rank-00001.log"]
        assert len((path / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_bug_of_ours_keeps_its_traceback(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from framework.app import entry\n"
        "from framework.config import GenerateConfig\n"
        "@entry('generate', GenerateConfig)\n"
        "def main(config):\n"
        "    raise RuntimeError(f'a bug with {config.prompt}')\n"
        "main()\n"
    )
    command = [sys.executable, program, "model.path=x", "prompt=Hello"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f'File "{os.fspath(program)}", line 5, in main' in done.stderr
    assert done.stderr.rstrip().endswith("RuntimeError: a bug with Hello")
    assert "loam: error" not in done.stderr


def test_help_ends_well_on_two_ranks():
    done = run("framework.pretrain", "--help", ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("== Fields: FIELD=VALUE ==") == 1


PROMPTS = [
    "Hello, world",
    "It's a truth; (that) = x: y",
    "null",
    "${oc.env:HOME} ${",
    "[a] {b} \\",
    "a\nb",
    'say "hi"',
    "",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_is_taken_as_it_was_typed(prompt, monkeypatch):
    taken = []
    monkeypatch.setattr("sys.argv", ["generate", "model.path=somewhere", f"prompt={prompt}"])
    with pytest.raises(SystemExit) as end:
        entry("generate", GenerateConfig)(taken.append)()
    assert end.value.code == 0
    assert [config.prompt for config in taken] == [prompt]
