"""Where the tasks run, in how many processes, and what stopped them: nothing of it changes what comes out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pytest
from datatrove.data import Document

from framework.composition import from_yaml, to_yaml
from framework.config import CorpusConfig, ExecutorConfig, PrepareConfig, ShardConfig, TokenizerConfig
from framework.corpus.console import Reporter
from framework.corpus.engine import Engine, Output
from framework.corpus.pipeline import prepare
from framework.errors import UserError
from tests.corpus.conftest import ROOT
from tests.corpus.texts import random_documents, write_jsonl

TASKS = 5


def many(tmp_path: Path, executor: ExecutorConfig, name: str = "data") -> PrepareConfig:
    """A corpus of five files with copies within and across them, one task each."""
    raw = tmp_path / "raw"
    for number in range(TASKS):
        copies = random_documents(60, seed=number - 1)[:7] + random_documents(60, seed=number)[:3]
        write_jsonl(raw / f"{number}.jsonl.gz", random_documents(60, seed=number) + copies)
    config = PrepareConfig(
        output=str(tmp_path / name),
        corpora={"many": CorpusConfig(paths=[f"{raw}/*"], source="here", licence="none", minimum_characters=100)},
        tokenizer=TokenizerConfig(vocabulary_size=600),
        shards=ShardConfig(bytes_per_shard=40_000, block_tokens=500, minimum_blocks=8),
        executor=executor,
        validation_fraction=0.1,
    )
    typed: PrepareConfig = from_yaml(to_yaml(config), PrepareConfig)  # 3.0 where 3 was given
    return typed


def local(workers: int) -> ExecutorConfig:
    return ExecutorConfig(workers=workers, tasks=TASKS)


def contents(output: str) -> dict[str, bytes]:
    return {str(p.relative_to(output)): p.read_bytes() for p in Path(output).rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one worker makes, undisturbed."""
    config = many(tmp_path_factory.mktemp("alone"), local(1))
    corpus = prepare(config).corpora["many"]
    # 60 texts in each file are new; the three copies within each file go, and those of the file before, if there is one
    assert corpus.documents_in == 70 * TASKS
    assert corpus.dropped["duplicate"] >= 10 * TASKS - 7 - corpus.dropped["minimum_characters"]
    made = contents(config.output)
    assert sum(name.startswith("text/many/train-0000") for name in made) > TASKS  # several shards of several tasks
    return made


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, alone: dict[str, bytes]) -> None:
    config = many(tmp_path, local(2))
    prepare(config)
    assert contents(config.output) == alone


@pytest.mark.slow
def test_the_number_of_tasks_changes_no_token(tmp_path: Path, alone: dict[str, bytes]) -> None:
    config = many(tmp_path, ExecutorConfig(workers=2, tasks=2))
    prepare(config)
    made = contents(config.output)
    tokens = [name for name in alone if name.startswith("tokens/") and not name.endswith("stage.json")]
    assert {name: made[name] for name in tokens} == {name: alone[name] for name in tokens}
    assert "text/many/train-00002-00000.tar" not in made


KILL = """
import json, os, signal, sys
from datatrove.executor.base import PipelineExecutor
from framework.corpus import engine, reading, texts, tokens
from framework.corpus.pipeline import prepare
from framework.composition import from_yaml
from framework.config import PrepareConfig

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[2]
if where == "before completion":  # the files are in place, datatrove does not know yet
    PipelineExecutor.mark_rank_as_completed = lambda self, rank: rank == 2 and die()
else:
    output = {"reading": reading.KeepDocuments, "writing": texts.WriteShards, "encoding": tokens.EncodeTexts}[where]
    write = output.write
    def half(self, documents, task, directory):
        facts = write(self, documents, task, directory)
        if task == 2:
            for path in directory.iterdir():
                path.write_bytes(path.read_bytes()[:100])
            die()
        return facts
    output.write = half
prepare(from_yaml(sys.argv[1], PrepareConfig))
"""


@pytest.mark.parametrize(
    "where",
    [
        *(pytest.param(where, marks=pytest.mark.slow) for where in ("reading", "before completion", "writing")),
        "encoding",
    ],
)
def test_a_killed_run_goes_on_with_the_tasks_that_are_left(
    tmp_path: Path, alone: dict[str, bytes], where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = many(tmp_path, local(1))
    command = [sys.executable, "-c", KILL, to_yaml(config), where]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=100)
    assert killed.returncode == -signal.SIGKILL
    prepare(config)
    kept = 3 if where == "before completion" else 2
    assert f"{kept} of {TASKS} tasks were done before, kept" in capsys.readouterr().err
    assert contents(config.output) == alone


def test_a_task_is_done_again_if_its_file_has_changed_or_its_work_is_damaged(
    tmp_path: Path, alone: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    config = many(tmp_path, local(1))
    sound = {number: (tmp_path / f"raw/{number}.jsonl.gz").read_bytes() for number in range(TASKS)}
    write_jsonl(tmp_path / "raw/1.jsonl.gz", random_documents(3, seed=9))
    (tmp_path / "raw/4.jsonl.gz").write_bytes(sound[4][:-20])
    with pytest.raises(UserError, match=r"4\.jsonl\.gz: damaged"):
        prepare(config)
    work = Path(config.output) / "documents/.many.work/kept"
    assert sorted(path.name for path in work.glob("0*")) == ["00000", "00001", "00002", "00003"]
    assert not list(work.glob(".*"))
    (work / "00002/documents.jsonl.zst").write_bytes(b"{}")
    for number in (1, 4):
        (tmp_path / f"raw/{number}.jsonl.gz").write_bytes(sound[number])
    capsys.readouterr()
    prepare(config)
    assert "many reading: 2 of 5 tasks were done before, kept" in capsys.readouterr().err
    assert contents(config.output) == alone


def run_command(config: PrepareConfig, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m framework.prepare` in a process of its own, as a user starts it."""
    own = Path(config.output).parent / "own/corpus"
    own.mkdir(parents=True, exist_ok=True)
    corpus = {name: value for name, value in asdict(config.corpora["many"]).items() if name != "filters"}
    (own / "many.yaml").write_text("# @package corpora.many\n" + json.dumps(corpus))
    settings = [f"output={config.output}", "tokenizer.vocabulary_size=600", "validation_fraction=0.1"]
    settings += [f"shards.{name}={value}" for name, value in asdict(config.shards).items()]
    command = [sys.executable, "-m", "framework.prepare", "--config-dir", str(own.parent), "corpus=[many]", *settings]
    return subprocess.run(
        [*command, f"executor.tasks={TASKS}", *overrides],
        cwd=own.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_workers_mistake_is_one_line_and_code_2(tmp_path: Path) -> None:
    config = many(tmp_path, local(2))
    bad = tmp_path / "raw/2.jsonl.gz"
    bad.write_bytes(bad.read_bytes()[:-20])
    done = run_command(config, "executor.workers=2")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"loam: error: {bad}: damaged")
    assert done.stdout == ""


def test_a_bug_in_a_worker_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("framework.corpus.steps.clean_text", lambda _: 1 // 0)
    with pytest.raises(RuntimeError, match=r"task 0 failed:\n(?s:.*)steps\.py(?s:.*)ZeroDivisionError"):
        prepare(many(tmp_path, local(1)))
    assert not list(tmp_path.glob("data/**/*.tar"))


def test_a_disk_that_fills_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    config = many(tmp_path, local(1))
    monkeypatch.setattr("zstandard.open", full)
    with pytest.raises(UserError, match=r"output: .*/documents/\.many\.work/kept: No space left on device; make room"):
        prepare(config)
    assert not [path for path in tmp_path.glob("data/**/*") if path.is_file()]


def test_a_worker_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    with (
        Engine(ExecutorConfig(workers=2), Reporter()) as engine,
        pytest.raises(UserError, match="a worker process died, for want of memory most likely"),
    ):
        engine.run("dying", [Dying(tmp_path, ["a", "b", "c"])])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", "datatrove"]


class Dying(Output):
    """The second task kills its process, half done, when the first is whole."""

    name = "dying"

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> dict[str, int]:
        (directory / "file").write_text("half")
        while task and not (self.directory / "00000").exists():
            time.sleep(0.05)
        if task:
            os.kill(os.getpid(), signal.SIGKILL)
        return {}


ORPHANS = """
import sys
from pathlib import Path
from framework.config import ExecutorConfig
from framework.corpus.engine import Engine
from framework.corpus.console import Reporter
from tests.corpus.test_engine import Sleeping

if __name__ == "__main__":
    with Engine(ExecutorConfig(workers=2), Reporter()) as engine:
        engine.run("sleeping", [Sleeping(Path(sys.argv[1]), ["a", "b"])])
"""


class Sleeping(Output):
    """Tasks that tell who does them, and take long."""

    name = "sleeping"

    def write(self, documents: Iterable[Document], task: int, directory: Path) -> dict[str, int]:
        (self.directory / f"{os.getpid()}.worker").touch()
        time.sleep(100)
        return {}


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ORPHANS)
    work = tmp_path / "work"
    with subprocess.Popen([sys.executable, program, work], env={**os.environ, "PYTHONPATH": str(ROOT)}) as started:
        until(lambda: len(list(work.glob("*.worker"))) == 2)
        started.kill()
    workers = [int(path.stem) for path in work.glob("*.worker")]
    until(lambda: not any(running(worker) for worker in workers))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_real_ray_cluster_gives_the_same_bytes(tmp_path: Path, alone: dict[str, bytes]) -> None:
    config = many(tmp_path, ExecutorConfig(name="ray", workers=2, tasks=TASKS, memory_gigabytes=0.25))
    done = run_command(config, "executor=ray", "executor.workers=2", "executor.memory_gigabytes=0.25")
    assert done.returncode == 0, done.stderr
    assert contents(config.output) == alone
    assert not [
        line
        for line in done.stderr.splitlines()
        if not line.startswith(("many ", "tokenizer: ", "manifest: ", "report: ", "duplicates: "))
    ]
    bad = tmp_path / "raw/3.jsonl.gz"
    bad.write_bytes(bad.read_bytes()[:-20])
    done = run_command(config, "executor=ray", "executor.workers=2", "executor.memory_gigabytes=0.25")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"loam: error: {bad}: damaged")


# A stand-in for Slurm: `sbatch` runs each element of the array at once, as the batch script says.
SBATCH = f"""#!{sys.executable}
import os, re, subprocess, sys
script = sys.argv[-1]
text = open(script).read()
with open(os.environ["STUB_LOG"], "a") as log:
    log.write(text)
options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.M))
assert options["partition"] == "cpu", options
print("Submitted batch job 17")
if "array" in options and "dependency" not in options:
    first, last = map(int, options["array"].split("%")[0].split("-"))
    for element in range(first, last + 1):
        exported = dict(pair.split("=") for pair in sys.argv[1].removeprefix("--export=ALL,").split(","))
        job = {{"SLURM_ARRAY_TASK_ID": str(element), "SLURM_JOB_ID": "17", "SLURM_NODELIST": "here", **exported}}
        with open(options["output"].replace("%A", "17").replace("%a", str(element)), "w") as out:
            subprocess.run(["bash", script], env={{**os.environ, **job}}, stdout=out, stderr=out)
"""
STUBS = {
    "sbatch": SBATCH,
    "scontrol": '#!/bin/sh\n[ "$1 $2" = "show hostnames" ] && echo "$3"\n',
    "squeue": "#!/bin/sh\nexit 0\n",
}


def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has the stand-in."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in STUBS.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "STUB_LOG": str(tmp_path / "submitted")}


@pytest.mark.slow
def test_slurm_runs_the_script_that_was_submitted(tmp_path: Path, alone: dict[str, bytes]) -> None:
    config, environment = many(tmp_path, local(1)), slurm(tmp_path)
    settings = ("executor=slurm", "executor.workers=3", "executor.slurm_time=1:30:00", "executor.memory_gigabytes=6")
    done = run_command(config, *settings, **environment)
    assert done.returncode == 0, done.stderr
    assert contents(config.output) == alone
    script = (tmp_path / "submitted").read_text()
    for line in (
        "--array=0-4%3",
        "--time=1:30:00",
        "--mem-per-cpu=6G",
        "--partition=cpu",
        "--job-name=loam-many-reading",
    ):
        assert f"#SBATCH {line}\n" in script


def test_a_mistake_on_slurm_is_one_line(tmp_path: Path) -> None:
    config, environment = many(tmp_path, local(1)), slurm(tmp_path)
    bad = tmp_path / "raw/2.jsonl.gz"
    bad.write_bytes(bad.read_bytes()[:-20])
    done = run_command(config, "executor=slurm", **environment)
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("loam: error:")] == done.stderr.splitlines()
    assert f"{bad}: damaged" in done.stderr


def test_a_machine_without_slurm_is_told_so(tmp_path: Path) -> None:
    assert shutil.which("sbatch") is None
    with pytest.raises(UserError, match="executor: slurm needs sbatch, which is not on PATH"):
        prepare(many(tmp_path, ExecutorConfig(name="slurm", slurm_partition="cpu")))
