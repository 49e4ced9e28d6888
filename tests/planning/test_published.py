"""Plans of runs that others made, against what they published of them."""

import json
import subprocess
import sys

import pytest

from framework.config import ClusterConfig, PretrainConfig
from framework.planning.checkpointing import checkpoints_of
from framework.planning.cost import cost_of
from framework.planning.duration import YEAR
from framework.planning.parameters import parameters_of
from tests.launch import ENVIRONMENT, ROOT

LLAMA_2 = [  # arXiv:2307.09288, table 2: GPU-hours, watts, tonnes of CO2
    pytest.param(184_320, 400, 31.22, id="7B"),
    pytest.param(368_640, 400, 62.44, id="13B"),
    pytest.param(1_038_336, 350, 153.90, id="34B"),
    pytest.param(1_720_320, 400, 291.42, id="70B"),
]
LLAMA_3 = [  # its model card: GPU-hours, watts, tonnes; the hours and tonnes are rounded
    pytest.param(1.3e6, 700, 390, id="8B"),
    pytest.param(6.4e6, 700, 1900, id="70B"),
]
# kg a kWh, and the building's share, of LLaMA (arXiv:2302.13971, section 6), by which both counted
META = {"carbon_kg_per_kwh": 0.385, "power_usage_effectiveness": 1.1}


def plan(*overrides: str) -> dict:
    """What the command prints as JSON."""
    command = [sys.executable, "-m", "framework.plan", "format=json", *overrides]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_gpt3():
    """3.14e23 operations (arXiv:2005.14165, table D.1); 355 GPU-years and 4.6 million dollars by Lambda's estimate."""
    found = plan("model=gpt3_175b", "cluster=v100")
    assert found["work"]["tokens"] == pytest.approx(300e9, rel=1e-4)
    assert found["work"]["flops_by_parameters"] == pytest.approx(3.14e23, rel=2e-3)
    time, cost = found["by_parameters"]
    assert time["gpu_hours"] * 3600 / YEAR == pytest.approx(355, rel=5e-3)
    assert cost["dollars"] == pytest.approx(4.6e6, rel=2e-2)
    # with attention, which that leaves out, a little more
    assert found["work"]["flops"] / found["work"]["flops_by_parameters"] == pytest.approx(1.028, abs=2e-3)
    assert not found["verdict"]["fits"]
    assert found["work"]["parameters"] == 174_604_259_328


@pytest.mark.parametrize(("hours", "watts", "tonnes"), LLAMA_2)
def test_carbon_of_llama_2(hours, watts, tonnes):
    cost = cost_of(hours, ClusterConfig(watts=watts, **META))
    assert cost.carbon_kg == pytest.approx(1000 * tonnes, rel=1e-3)


@pytest.mark.parametrize(("hours", "watts", "tonnes"), LLAMA_3)
def test_carbon_of_llama_3(hours, watts, tonnes):
    cost = cost_of(hours, ClusterConfig(watts=watts, **META))
    assert cost.carbon_kg == pytest.approx(1000 * tonnes, rel=2e-2)


def test_hours_of_llama_2():
    """2 trillion tokens in rows of 4,096 took 184,320 hours of A100: a utilisation of 0.45."""
    shape = (
        "model=llama_8b",
        "model.vocabulary_size=32000",
        "model.key_value_heads=32",
        "model.intermediate_size=11008",
    )
    found = plan(*shape, "cluster=a100_8", "data.tokens=2e12", "data.sequence_length=4096", "cluster.mfu=0.45")
    assert found["work"]["parameters"] == 6_738_415_616
    assert found["duration"]["gpu_hours"] == pytest.approx(184_320, rel=0.05)


def test_failures_of_llama_3():
    """419 interruptions in 54 days on 16,384 GPUs (arXiv:2407.21783, section 3.3.4)."""
    parameters = parameters_of(PretrainConfig(), {"a": (10, 10)})
    found = checkpoints_of(PretrainConfig(), parameters, 16_384, step_seconds=10.0, steps=54 * 8640)
    assert found.failures == pytest.approx(419, abs=1)


def test_the_interval_is_the_best_of_all():
    """Against trying: no other interval loses less in a run that fails as often."""
    config = PretrainConfig()
    config.cluster.disk_gb_per_second, config.cluster.gpu_hours_per_failure = 0.1, 100.0
    found = checkpoints_of(config, parameters_of(config, {"a": (10**9,)}), 10, step_seconds=1.0, steps=1000)
    between = 10 * 3600.0

    def lost(interval: float) -> float:
        return found.write_seconds / interval + interval / 2 / between

    assert found.bytes == 12 * 10**9
    assert found.write_seconds == 120
    assert all(lost(found.interval_seconds) <= lost(found.interval_seconds * factor) for factor in (0.5, 0.9, 1.1, 2))
    assert found.lost_share == pytest.approx(lost(found.interval_seconds) + 600 / between)
