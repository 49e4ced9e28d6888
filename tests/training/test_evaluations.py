"""What a model is asked while it is trained is what `evaluate` asks of the directory that it becomes."""

import json

import pytest

from tests.launch import pretrain, run

TASKS = ("bias.templates=true",)


@pytest.mark.slow
def test_the_live_model_says_what_its_directory_says(runs, data, tmp_path):
    live = [f"evaluation.{task}" for task in TASKS]
    whole = ("schedule.steps=6", "run.stop_after=0", "evaluation.every=4", "zero=stage3")
    records = pretrain(runs, data, "evaluated", *whole, *live, ranks=2)
    asked = [record["step"] for record in records if any(name.startswith("task/") for name in record)]
    assert asked == [4, 6]
    done = run("framework.evaluate", f"model.path={runs}/evaluated/model", f"output={tmp_path}/out", *TASKS)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    expected = {f"task/{row['name']}": row["value"] for row in results["results"]}
    found = {name: value for name, value in records[-1].items() if name.startswith("task/")}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert len(found) > 5


@pytest.mark.slow
def test_to_ask_for_nothing_is_a_mistake(runs, data):
    done = run(
        "framework.pretrain", f"data.path={data}", f"run.directory={runs}", "run.name=nothing", "evaluation.every=4"
    )
    assert done.returncode == 2
    assert "evaluation.every: is 4, and nothing is asked for" in done.stderr
