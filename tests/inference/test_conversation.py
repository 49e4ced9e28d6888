"""A conversation with the real program: what the model is given at each turn, Ctrl-C, and what does not fit."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from framework.inference.conversation import Chat, Plain
from framework.inference.generation import generate_text, load
from framework.inference.prompts import Prompts, Turn
from tests.launch import ENVIRONMENT


@pytest.fixture
def prompts(llama):
    _, tokenizer = load(llama)
    return Prompts(Path(llama), tokenizer, "loam")


def test_a_chat_model_is_given_all_turns(prompts):
    history = Chat(prompts, "the soil")
    history.answered("the river", "grows")
    turns = [("system", "the soil"), ("user", "the river"), ("assistant", "grows"), ("user", "of")]
    assert history.asked("of") == prompts.of_turns([Turn(*turn) for turn in turns])


def test_another_is_given_one_text(prompts):
    history = Plain(prompts, "the ")
    history.answered("river", " grows")
    assert history.asked(" of") == prompts.of_text("the river grows of")


@pytest.mark.slow
def test_bytes_that_are_no_text_are_refused_and_the_conversation_goes_on(llama):
    command = [sys.executable, "-m", "framework.generate", f"model.path={llama}", "interactive=true"]
    command += ["temperature=0", "maximum_tokens=3"]
    for encoding in ("utf-8", "utf-8:surrogateescape"):
        told = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=told, input=b"a\xff\nthe\n", capture_output=True)
        assert done.returncode == 0, done.stderr
        assert b"has bytes that are not UTF-8, or half a surrogate pair, at character 2" in done.stderr
        assert done.stdout.count(b"> ") == 3


@pytest.mark.slow
def test_a_conversation_at_the_terminal(llama):
    command = [sys.executable, "-u", "-m", "framework.generate", f"model.path={llama}", "interactive=true"]
    command += ["temperature=0", "positions=4000", "maximum_tokens=2500"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe)

    def say(text):
        process.stdin.write(text)
        process.stdin.flush()

    def read_until(end):
        found = b""
        while not found.endswith(end):
            byte = process.stdout.read(1)
            assert byte, process.stderr.read()
            found += byte
        return found.removesuffix(end).decode()

    assert "has no chat template and continues what is typed" in read_until(b"\n> ")
    say(b"the river\n")
    begun = process.stdout.read(30).decode(errors="ignore")
    process.send_signal(signal.SIGINT)
    answer = begun + read_until(b"\n> ")
    model, tokenizer = load(llama)
    whole = "".join(generate_text(model, tokenizer, "the river", maximum_tokens=2500))
    assert whole.startswith(answer[:20])
    assert len(answer) < len(whole)  # Ctrl-C ended it
    say(b"stone " * 4000 + b"\n")
    assert read_until(b"> ") == ""
    say(b"/new\n")
    assert read_until(b"> ") == ""
    say(b"the river\n")
    assert process.stdout.read(20).decode(errors="ignore")[:15] == whole[:15]  # and nothing was kept of the first
    process.send_signal(signal.SIGINT)
    read_until(b"\n> ")
    process.stdin.close()
    assert process.wait(30) == 0
    told = process.stderr.read().decode()
    assert "loam: maximum_tokens: 2500 after a prompt of" in told
    assert "/new begins another conversation" in told
