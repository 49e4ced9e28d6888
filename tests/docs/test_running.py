"""The commands of every page, run in order in a copy of the repository, with overrides that make them small."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.docs import shortened
from tests.docs.copies import copy_of
from tests.docs.pages import PAGES, SHELL, Block, apply_diff, blocks, transcript
from tests.launch import ROOT

pytestmark = pytest.mark.slow
SECONDS = 600  # that a block may take, on a machine that does other things too
LEFT_OUT = [block for page in PAGES for block in blocks(page) if "not run" in block.notes]
TESTED = [page for page in PAGES if any(b.is_run or b.language == "diff" for b in blocks(page))]


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the repository in which `make demo` was run, small: what most pages begin with."""
    place = copy_of(ROOT, tmp_path_factory.mktemp("pages") / "loam")
    shortened.place(place / ".venv")
    done = run(place, Block("Makefile", 1, "bash", "make demo"))
    assert done.returncode == 0, done.stdout
    return place


@pytest.mark.parametrize("page", TESTED)
def test_a_page_is_true(page, grown, tmp_path):
    place, servers = tmp_path / "loam", []
    shutil.copytree(grown, place, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    shortened.place(place / ".venv")
    try:
        for block in blocks(page):
            follow(block, place, servers)
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.mark.parametrize("block", LEFT_OUT, ids=lambda block: block.name)
def test_what_cannot_be_run_here(block):
    """So that the summary counts what is not run; `-rs` lists it."""
    pytest.skip(f"{block.name}: {block.notes['not run']}")


def follow(block: Block, place: Path, servers: list[subprocess.Popen]) -> None:
    """Do what a block says."""
    if "not run" in block.notes:
        return
    if "file" in block.notes:
        path = place / block.notes["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language == "diff":
        apply_diff(block.text, place)
    elif "until" in block.notes:
        servers.append(start(block, place))
    elif block.language == "console":
        for command, printed in transcript(block.text):
            done = run(place, block, command)
            compare(block, printed, done.stdout)
    elif block.language in (*SHELL, "python"):
        done = run(place, block)
        assert done.returncode == 0, f"{block.name} ends with {done.returncode}:\n{block.text}\n{done.stdout[-6000:]}"


def run(place: Path, block: Block, command: str = "") -> subprocess.CompletedProcess:
    """The block, or one command of it; stdout and stderr together."""
    return subprocess.run(
        program(block, command),
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS,
    )


def program(block: Block, command: str = "") -> list[str]:
    if block.language == "python":
        return [sys.executable, "-c", block.text]
    return ["bash", "-euo", "pipefail", "-c", command or block.text]


def start(block: Block, place: Path) -> subprocess.Popen:
    """Start what goes on running, and wait until its URL answers."""
    url = block.notes["until"]
    assert not answers(url), f"{block.name}: something else is at {url} already"
    server = subprocess.Popen(program(block), cwd=place, env=environment(place), process_group=0)
    until = time.monotonic() + SECONDS
    while not answers(url):
        assert server.poll() is None, f"{block.name} ends with {server.returncode}"
        assert time.monotonic() < until, f"{block.name}: {url} does not answer"
        time.sleep(0.2)
    return server


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def environment(place: Path) -> dict[str, str]:
    """That of a shell in which `source .venv/bin/activate` was said, on a machine without GPU and network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MAKE"))},
        "PATH": f"{place / '.venv/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(place),
        "PET_MASTER_PORT": str(port),  # of torchrun, where the command names none
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }


def compare(block: Block, printed: list[str], output: str) -> None:
    """The lines that a page shows have to be there, in order; `...` stands for anything."""
    rest = output
    for line in filter(lambda line: line.strip(" .") != "", printed):
        pattern = r".*?".join(re.escape(part) for part in line.rstrip().split("..."))
        found = re.search(rf"^{pattern}\s*?$", rest, re.MULTILINE)
        assert found, f"{block.name}: {line!r} is not printed, or not in this place:\n{output[-6000:]}"
        rest = rest[found.end() :]
