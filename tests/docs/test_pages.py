"""What the pages say is so: their commands compose, what they name exists, their links lead somewhere."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import framework.config
from framework.composition import field_names
from tests.docs.copies import copy_of
from tests.docs.entries import Started, problem, started
from tests.docs.pages import (
    LANGUAGES,
    PAGES,
    SHELL,
    anchors,
    apply_diff,
    blocks,
    inline_code,
    links,
    text_of,
    transcript,
    words,
)
from tests.launch import ENVIRONMENT, ROOT

BLOCKS = {page: blocks(page) for page in PAGES}
DIFFS = {page: [block for block in BLOCKS[page] if block.language == "diff"] for page in PAGES}
SCHEMAS = [getattr(framework.config, name) for name in framework.config.__all__ if name.endswith("Config")]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
FIRST_PARTS = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - {"data", "runs"}
every_page = pytest.mark.parametrize("page", PAGES)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(where, words) of every simple command of a page."""
    found = []
    for block in BLOCKS[page]:
        if block.language in SHELL:
            found += [(block.name, part) for command in block.commands() for part in words(command)]
    return found


def entries(page: str) -> list[tuple[str, Started]]:
    """(where, what is started) of the commands that compose a configuration."""
    jobs = [(where, started(command)) for where, command in commands(page)]
    return [(where, job) for where, job in jobs if job and is_entry(job)]


def is_entry(job: Started) -> bool:
    return job.module.startswith("framework.") and "--help" not in job.arguments


def refused(page: str) -> list[Started | None]:
    """The commands of console blocks that are shown to be refused."""
    shown = [each for block in BLOCKS[page] if block.language == "console" for each in transcript(block.text)]
    wrong = [command for command, printed in shown if printed and printed[0].startswith("loam: error:")]
    return [started(part) for command in wrong for part in words(command)]


def test_every_block_is_run_or_says_why_not(capsys):
    """The list is printed, so that nothing is left out in silence; `pytest tests/docs` without -n shows it."""
    left_out = {}
    for block in (block for page in PAGES for block in BLOCKS[page]):
        assert block.language in LANGUAGES, f"{block.name}: ```{block.language} is nothing that the tests know"
        assert set(block.notes) <= {"not run", "file", "until"}, f"{block.name}: {block.notes}"
        if block.language in ("", "text"):
            commands = re.search(r"^(\$|make|python|torchrun|deepspeed) .*", block.text, re.MULTILINE)
            assert not commands, f"{block.name}: commands are ```bash, with what they print ```console"
        if "not run" in block.notes:
            assert len(block.notes["not run"]) > 10, f"{block.name}: say why"
            left_out[block.name] = block.notes["not run"]
    run = sum(block.is_run for page in PAGES for block in BLOCKS[page])
    with capsys.disabled():
        print(f"\n{run} blocks of the pages are run by `-m slow`; {len(left_out)} are not:")
        print(*(f"  {name}: {reason}" for name, reason in left_out.items()), sep="\n")
    assert run > 30


@every_page
def test_commands_compose(page, tmp_path, monkeypatch):
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    wrong = refused(page)
    for where, job in entries(page):
        told = problem_in_copy(page, tmp_path / "copy", job) if DIFFS[page] else problem(job)
        assert bool(told) == (job in wrong), f"{where}: {job.module} {' '.join(job.arguments)}: {told or 'is right'}"


def problem_in_copy(page: str, place: Path, job: Started) -> str:
    """As the page changes files of the repository, in a copy that has its changes."""
    if not place.exists():
        copy_of(ROOT, place)
        write_files(page, place)
        for block in DIFFS[page]:
            apply_diff(block.text, place)
    program = f"from tests.docs.entries import Started, problem\nprint(problem({job!r}))"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(place)}
    done = subprocess.run([sys.executable, "-c", program], cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_files(page: str, place: Path) -> None:
    """The files that a page has its reader write."""
    for block in BLOCKS[page]:
        if "file" in block.notes:
            path = place / block.notes["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


@every_page
def test_what_commands_name_exists(page):
    made = {block.notes["file"] for block in BLOCKS[page] if "file" in block.notes}
    for where, command in commands(page):
        job = started(command)
        if job and job.module.split(".")[0] in ("framework", "kernels", "benchmarks", "tests"):
            assert (ROOT / job.module.replace(".", "/")).with_suffix(".py").exists(), f"{where}: {job.module}"
        if command[:1] == ["make"]:
            goals = [word for word in command[1:] if not word.startswith("-") and "=" not in word]
            assert set(goals) <= TARGETS, f"{where}: {command}"
        for word in command:
            for path in re.findall(r"[\w./*-]+(?:::\w+)?", word.partition("=")[2] or word):
                assert path in made or is_there(path), f"{where}: {path}"


@every_page
def test_what_the_text_names_exists(page):
    made = {block.notes["file"] for block in BLOCKS[page] if "file" in block.notes}
    for code in inline_code(page):
        if code.startswith("make "):
            assert set(code.split()[1:2]) <= TARGETS, code
        for path in code.split():
            assert path in made or is_there(path), f"{page}: {path}"
        assert names_a_setting(code), f"{page}: {code} is no setting of any entry point"


def is_there(path: str) -> bool:
    """Whether a file of the repository, or a test `FILE::TEST`, exists; what names nothing of the repository passes."""
    path, _, test = path.strip(".,;:").partition("::")
    first = path.partition("/")[0]
    if "/" not in path or first not in FIRST_PARTS or re.search(r"[A-Z]{3}|[{}$]", path.replace("README", "")):
        return True
    found = list(ROOT.glob(path.rstrip("/")))
    return bool(found) and (not test or f"def {test}" in found[0].read_text())


def names_a_setting(code: str) -> bool:
    """False for `group.field`, `group.field=value` or `group=option` of which there is no such thing."""
    name, equals, value = code.partition("=")
    if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", name) or " " in name:
        return True
    group = ROOT / "configs" / name
    if equals and group.is_dir():
        options = re.split(r"[|,]", value.strip("[]")) if re.fullmatch(r"[\w|,\[\]]+", value) else []
        return all((group / f"{option}.yaml").exists() for option in options if not option.isupper())
    if "." not in name or name.rsplit(".", 1)[1] in ("md", "py", "html", "json", "jsonl", "yaml", "txt", "model"):
        return True
    if name.split(".")[0] not in SECTIONS:
        return True
    return any(name == field or field.startswith(f"{name}.") or is_in(name, field) for field in FIELDS)


def is_in(name: str, field: str) -> bool:
    """Whether a name is a key of a field that takes any."""
    return field in MAPPINGS and name.startswith(f"{field}.")


FIELDS = {field for schema in SCHEMAS for field in field_names(schema)}
SECTIONS = {field.partition(".")[0] for field in FIELDS if "." in field}
MAPPINGS = {"corpora", "perplexity.text", "memorization.text", "memorization.held_out", "data.columns", "data.weights"}


@every_page
def test_links_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in anchors(path.resolve().relative_to(ROOT).as_posix()), f"{page}: {link}"


def test_every_page_is_linked_from_the_index():
    index = text_of("docs/README.md")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"({page}" not in index} == set()


def test_the_readme_names_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    table = text_of("README.md").split("| extra |")[1].split("\n\n")[0]
    named = "".join(row.split("|")[1] for row in table.splitlines()[2:])
    assert set(re.findall(r"`([a-z0-9]+)`", named)) == set(extras)


@every_page
def test_python_compiles(page):
    for block in BLOCKS[page]:
        if block.language == "python":
            ast.parse(block.text, filename=block.name)


@every_page
def test_diffs_apply(page, tmp_path):
    for name in {name for block in DIFFS[page] for name in re.findall(r"^--- a/(.*)$", block.text, re.MULTILINE)}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for block in DIFFS[page]:
        apply_diff(block.text, tmp_path)


# what the checks themselves see


def test_a_renamed_field_is_seen():
    assert "schedule.stepz" in problem(Started("framework.pretrain", ("schedule.stepz=3",)))
    wrong = Started("framework.pretrain", ("model.heads=3",), ranks=2)
    assert problem(wrong).startswith("model.heads: 3 heads do not divide")
    assert not names_a_setting("guard.timeouts=600")
    assert not names_a_setting("optimizer=adam")
    assert names_a_setting("zero.offload=cpu")
    assert names_a_setting("corpora.web.paths=[...]")


def test_a_missing_file_or_test_is_seen():
    assert is_there("tests/launch.py")
    assert not is_there("tests/launcher.py")
    assert is_there("tests/docs/test_pages.py::test_a_missing_file_or_test_is_seen")
    assert not is_there("tests/test_app.py::test_that_nobody_wrote")


def test_commands_are_taken_apart():
    job = started(next(words("CUDA_VISIBLE_DEVICES= torchrun --nnodes 2 --nproc-per-node 4 -m framework.pretrain a=1")))
    assert job == Started("framework.pretrain", ("a=1",), 8)
    assert started(["make", "demo"]) is None
