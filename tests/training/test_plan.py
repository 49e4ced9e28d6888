"""What a run says of itself before its first step, and what it says to that after its last."""

import json

import pytest

from tests.launch import SMALL, run


def test_a_run_keeps_its_plan_and_compares_it_with_the_facts(finished):
    plan, summary = (json.loads((finished / name).read_text()) for name in ("plan.json", "summary.json"))
    assert plan["work"]["steps"] == summary["steps"]
    assert plan["work"]["tokens"] == summary["tokens"]
    compared = summary["plan"]
    assert {"parameters", "tokens_per_second", "training_seconds", "checkpoint_bytes"} <= set(compared)
    assert compared["parameters"]["predicted"] == compared["parameters"]["fact"]
    sizes = compared["checkpoint_bytes"]
    assert sizes["predicted"] == pytest.approx(sizes["fact"], rel=0.1)  # beside tensors there is the state, as JSON
    log = (finished / "log" / "rank-00000.log").read_text()
    assert log.index("plan: ") < log.index("step  1/12")
    assert f"{plan['verdict']['largest_micro']}" in log


@pytest.mark.slow
def test_tokens_say_how_many_steps_there_are_and_a_plan_that_does_not_fit_is_no_refusal(runs, data):
    """16 rows of 32 tokens a step."""
    places = (f"run.directory={runs}", "run.name=tight", f"data.path={data}")
    small = [override for override in SMALL if not override.startswith(("schedule.steps", "run.stop_after"))]
    done = run(
        "framework.pretrain", *small, *places, "data.tokens=4097", "run.stop_after=1", "cluster.memory_share=1e-9"
    )
    assert done.returncode == 0, done.stderr
    assert "does not fit: needs " in done.stdout
    assert "step 1/9" in done.stdout
