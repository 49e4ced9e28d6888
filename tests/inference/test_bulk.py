"""Files of rows: what stands in them, and jobs that are killed, damaged, changed and begun twice."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framework.config import GenerateConfig, HookConfig, ModelSource
from framework.errors import UserError
from framework.inference.bulk import complete_file
from framework.inference.generation import load
from framework.model.chat.encoding import load_chat
from tests.launch import ENVIRONMENT
from tests.model.small_tokenizer import WORDS


def rows(count, seed=0):
    chance = random.Random(seed)
    return [{"id": f"é{n}", "prompt": " ".join(chance.choices(WORDS, k=chance.randint(1, 9)))} for n in range(count)]


def write(path, content):
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def job(llama, tmp_path):
    """Settings of a job of 12 rows; the fields given are changed."""
    source = write(tmp_path / "in.jsonl", rows(12))

    def make(**options):
        fields = {"input": source, "output": str(tmp_path / "out.jsonl"), "maximum_tokens": 10, "batch": 3, "seed": 4}
        config = GenerateConfig(model=ModelSource(str(llama)), **fields | options)
        config.check()
        return config

    return make


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.jsonl"


def test_rows_come_back_in_their_order_with_a_completion(job, output, llama):
    assert complete_file(job()) == 12
    found = read(output)
    assert [{k: v for k, v in row.items() if k != "completion"} for row in found] == rows(12)
    assert {row["completion"]["finish"] for row in found} <= {"stop", "length"}
    assert len({row["completion"]["text"] for row in found}) > 8
    assert complete_file(job()) == 0
    assert read(output) == found
    alone = job(batch=1, output=str(output.with_name("alone.jsonl")))
    assert complete_file(alone) == 12
    assert read(output.with_name("alone.jsonl")) == found


def test_a_job_goes_on_from_any_byte_where_it_was_ended(job, output):
    complete_file(job())
    whole = output.read_bytes()
    for size in random.Random(0).sample(range(1, len(whole)), 6):
        output.write_bytes(whole[:size])
        done = whole[:size].count(b"\n")
        assert complete_file(job()) == 12 - done
        assert output.read_bytes() == whole
    output.write_bytes(whole[:300] + b"\0" * 50)
    complete_file(job())
    assert output.read_bytes() == whole


def test_damage_in_the_middle_is_told(job, output):
    complete_file(job())
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join([*lines[:4], b'{"id":\n', *lines[5:]]))
    with pytest.raises(UserError, match=r"out\.jsonl line 5: is damaged; remove it and all after it"):
        complete_file(job())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.3}, r"^temperature: .*out\.jsonl was begun with 0\.8, and now it is 0\.3; set it back"),
        ({"stop": ["x"]}, r"^stop: .* was begun with \[\], and now it is \['x'\]"),
        ({"postprocess": [HookConfig(strip=True)]}, r"^postprocess: "),
        ({"seed": None}, r"^seed: "),
    ],
)
def test_other_settings_are_refused(change, message, job, output):
    complete_file(job())
    before = output.read_bytes()
    with pytest.raises(UserError, match=message):
        complete_file(job(**change))
    assert output.read_bytes() == before


def test_another_input_is_refused_and_a_longer_one_gone_on_with(job, output, tmp_path):
    complete_file(job())
    before = read(output)
    write(tmp_path / "in.jsonl", rows(12)[:7])
    with pytest.raises(UserError, match=r"out\.jsonl line 8: is not of .*in\.jsonl, which has fewer rows"):
        complete_file(job())
    changed = rows(12)
    changed[4]["id"] = "other"
    write(tmp_path / "in.jsonl", changed)
    with pytest.raises(UserError, match=r"out\.jsonl line 5: is not of .*in\.jsonl line 5; take the input"):
        complete_file(job())
    write(tmp_path / "in.jsonl", rows(15))
    assert complete_file(job()) == 3
    assert read(output)[:12] == before
    (tmp_path / "out.jsonl.settings.json").unlink()
    with pytest.raises(UserError, match=r"is not empty, and .*settings\.json does not tell how it was written"):
        complete_file(job())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', "is no JSON"),
        ('["a"]', "is no JSON object"),
        ('{"id": 1}', "lacks prompt, or messages"),
        ('{"prompt": "a", "messages": []}', "has prompt and messages; give one"),
        ('{"prompt": 1}', "prompt is no text"),
        ('{"prompt": "\\ud800"}', "half a surrogate pair, at character 1"),
        ('{"messages": []}', "messages is no list of them"),
        ('{"messages": [{"role": "user"}]}', "has one without role and content"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "has no chat template; give loam"),
        ('{"prompt": "a", "completion": 1}', "has a field completion already"),
    ],
)
def test_a_row_that_cannot_be_continued_is_named_before_any_is(line, message, job, output, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "the"}\n\n' + line + "\n")
    with pytest.raises(UserError, match=rf"in\.jsonl line 3: .*{message}"):
        complete_file(job())
    assert not output.exists()
    assert not Path(f"{output}.settings.json").exists()


def test_conversations_are_read_by_the_template(job, output, llama, tmp_path):
    messages = [{"role": "user", "content": "the river <|end|>"}]
    write(tmp_path / "in.jsonl", [{"messages": messages}])
    complete_file(job(template="loam", temperature=0.0))
    chat = load_chat(llama, "loam")

    class Turn:
        role, content = "user", "the river <|end|>"

    ids = chat.encode([chat.template.render([Turn()], prompt=True)])[0].ids.tolist()
    model, tokenizer = load(llama)
    import torch

    tokens = []
    for _ in range(10):
        token = model(torch.tensor([[*ids, *tokens]]))[0, -1].argmax().item()
        if token in tokenizer.end:
            break
        tokens.append(token)
    assert read(output)[0]["completion"]["text"] == tokenizer.decode(tokens)


def test_checks_mark_retry_and_stop(job, output, tmp_path):
    hooks = [HookConfig(strip=True), HookConfig(regex="^[a-z]")]
    complete_file(job(postprocess=hooks))
    marked = [row["completion"] for row in read(output)]
    assert 0 < sum("failed" in one for one in marked) < 12
    output.unlink()
    complete_file(job(postprocess=hooks, failed="retry", retries=8))
    again = [row["completion"] for row in read(output)]
    assert sum("failed" in one for one in again) < sum("failed" in one for one in marked)
    for one, other in zip(marked, again, strict=True):
        assert other.get("attempts", 1) > 1 if "failed" in one else one == other
    output.unlink()
    with pytest.raises(UserError, match=r"in\.jsonl row \d+: nothing in it is as .* has it; failed=mark goes on"):
        complete_file(job(postprocess=hooks, failed="stop"))
    assert len(read(output)) == next(n for n, one in enumerate(marked) if "failed" in one)


def test_log_probabilities_stand_in_the_row(job, output):
    complete_file(job(log_probabilities=2, temperature=0.0, stop=["e"]))
    for row in read(output):
        found = row["completion"]
        assert len(found["log_probabilities"]) == found["tokens"]
        for one in found["log_probabilities"]:
            best = one["alternatives"][0]
            assert (one["id"], one["log_probability"]) == (best["id"], pytest.approx(best["log_probability"]))
            assert len(one["alternatives"]) == 2


@pytest.mark.slow
def test_a_job_that_is_killed_loses_and_repeats_nothing(job, output, llama, tmp_path):
    write(tmp_path / "in.jsonl", rows(60))
    arguments = [f"model.path={llama}", f"input={tmp_path / 'in.jsonl'}", f"output={output}", "maximum_tokens=40"]
    command = [sys.executable, "-m", "framework.generate", *arguments, "batch=2", "seed=4"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not output.exists() or output.read_bytes().count(b"\n") < 5:
        assert process.poll() is None
        time.sleep(0.005)
    with pytest.raises(UserError, match=r"another process writes .*out\.jsonl; wait for it"):
        complete_file(job(maximum_tokens=40))
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = output.read_bytes().count(b"\n")
    assert killed_at < 60
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{output}: {60 - killed_at} rows written\n"
    found = output.read_bytes()
    output.unlink()
    complete_file(job(maximum_tokens=40))
    assert output.read_bytes() == found
