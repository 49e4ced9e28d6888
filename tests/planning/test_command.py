"""The command as it is typed: tables, JSON, what is refused, and what it says to type next."""

import json
import shlex

import pytest
import yaml

from framework.config import BatchConfig, PlanConfig
from framework.planning.defaults import largest
from tests.launch import run

LLAMA = ("model=llama_8b", "cluster=h100_8", "cluster.gpus=64", "data.tokens=160e9")


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Standard output of the plan for Llama 8B, and the JSON that it wrote."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    done = run("framework.plan", *LLAMA, f"output={file}", cwd=file.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(file.read_text()), file


def test_it_leaves_nothing_but_the_file(planned):
    _, _, file = planned
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]


def test_every_part_of_the_plan_is_there(planned):
    text, facts, _ = planned
    for word in ("8,030,261,248", "160 B", "fits", "dollars", "kWh", "kg CO2", "checkpoint.every", "stage3", "every_n"):
        assert word in text
    assert facts["verdict"]["fits"] is True
    assert len(facts["choices"]) == 9  # stage 0 would sum gradients in bf16
    assert facts["work"]["compute_optimal_tokens"] == 20 * 8_030_261_248
    assert facts["duration"]["mfu"] == pytest.approx(0.4)
    for choice in facts["choices"]:
        assert set(choice["memory"]["parts"]) == {
            *("weights", "gradients", "optimizer", "activations", "logits", "buffers")
        }


def test_less_is_held_at_higher_stages_and_where_more_is_recomputed(planned):
    _, facts, _ = planned
    held = {(c["stage"], c["policy"]): c["verdict"]["bytes"] for c in facts["choices"]}
    for stage in (1, 2, 3):
        assert held[stage, "full"] < held[stage, "every_n"] < held[stage, "none"]
    for policy in ("none", "every_n", "full"):
        assert held[3, policy] < held[2, policy] < held[1, policy]


def test_what_it_says_to_type_composes_to_the_run_that_it_planned(planned):
    _, facts, _ = planned
    words = shlex.split(facts["command"])
    assert words[:4] == ["NODES=8", "NODE_RANK=0", "MASTER_ADDR=HOST", "RANKS=8"]  # on each node, with its number
    assert words[4:6] == ["launch/torchrun_nodes.sh", "framework.pretrain"]
    overrides = words[words.index("framework.pretrain") + 1 :]
    done = run("framework.pretrain", *overrides, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    composed = yaml.safe_load(done.stdout)
    assert composed["data"]["tokens"] == 160e9
    assert composed["batch"]["micro"] == facts["verdict"]["micro"]
    assert composed["batch"]["sequences"] * composed["data"]["sequence_length"] * facts["work"]["steps"] >= 160e9
    assert composed["cluster"]["name"] == "h100"


def test_a_fine_tuning_holds_state_of_its_adapters_alone():
    done = run(
        *("framework.plan", "purpose=finetune", "format=json", "model=llama_8b", "cluster=h100", "adapter=lora"),
        *("data.tokens=10e6", "data.sequence_length=1024"),
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["trained"] == 20_971_520  # rank 8 on the 7 matrices of each of 32 blocks
    assert facts["checkpoints"]["bytes"] == 12 * facts["trained"]
    assert facts["memory"]["parts"]["weights"] == 2 * (8_030_261_248 + facts["trained"])
    assert facts["memory"]["parts"]["optimizer"] == 12 * facts["trained"]
    assert "framework.finetune model.path=... data.train=..." in facts["command"]
    assert "rows.length=1024" in facts["command"]


def test_what_does_not_fit_is_told_what_would():
    """16 GB of weights do not shrink with more GPUs at stage 2, and do at stage 3."""
    done = run("framework.plan", "model=llama_8b", "cluster=v100_8", "cluster.gpus=64", "output=/dev/stderr")
    told = " ".join(done.stdout.replace("│", " ").split())
    assert "zero=stage3 memory.activation_checkpointing=none batch.micro=1 does" in told
    choices = {(one["stage"], one["policy"]): one for one in json.loads(done.stderr)["choices"]}
    assert choices[3, "none"]["verdict"]["fits"]
    assert not choices[2, "none"]["verdict"]["fits"]
    assert choices[2, "full"]["step_seconds"] > choices[3, "none"]["step_seconds"]


@pytest.mark.slow
def test_an_answer_that_does_not_fit_has_no_price():
    done = run("framework.plan", "purpose=inference", "model=gpt3_175b", "cluster=h100_8")
    assert "parallel.tensor=8 does" in done.stdout
    assert "dollars" not in done.stdout
    done = run("framework.plan", "purpose=inference", "model=gpt3_175b", "cluster=h100_8", "parallel.tensor=8")
    assert "does not fit" not in done.stdout
    assert "dollars" in done.stdout


@pytest.mark.parametrize(("cluster", "said"), [("a100", "a100 has none: use bf16"), ("h100", "what fp8 gains is not")])
@pytest.mark.slow
def test_fp8_where_there_is_none_and_where_there_is(cluster, said):
    done = run("framework.plan", "model=llama_1b", f"cluster={cluster}_8", "precision=fp8")
    assert said in " ".join(done.stdout.replace("│", " ").split())
    assert ("To start it" in done.stdout) == (cluster == "h100")


@pytest.mark.slow
def test_a_plan_that_does_not_fit_is_a_plan():
    done = run("framework.plan", "model=llama_8b", "cluster=v100", "data.tokens=1e9", "format=json")
    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)["verdict"]
    assert (verdict["fits"], verdict["largest_micro"]) == (False, 0)


@pytest.mark.slow
def test_what_cannot_be_started_so_is_said_so():
    done = run("framework.plan", "model=llama_8b", "cluster=v100", "data.tokens=1e9")
    assert done.returncode == 0, done.stderr
    assert "v100 has none: its peak" in " ".join(done.stdout.replace("│", " ").split())
    assert "To start it" not in done.stdout


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["purpose=sell"], "purpose: unknown value 'sell'; choose pretrain | finetune | inference"),
        (["cluster=h100_9"], "cluster: there is no 'h100_9'; choose a100 | a100_8 | "),
        (["cluster.gpus=0"], "cluster.gpus: is 0; "),
        (["cluster=h100_8", "cluster.gpus=13"], "cluster.gpus: is 13, which are no whole nodes of 8; use 8 or 16"),
        (["cluster.mfu=40"], "cluster.mfu: is 40"),
        (["data.tokens=1e9", "schedule.steps=10"], "data.tokens: is 1e+09, and schedule.steps=10 is given too; "),
        (["data.tokens=1"], "data.tokens: is 1, 1 steps of 256 sequences; schedule.warmup_steps and"),
        (["purpose=finetune"], "data.tokens: is 0; say how many tokens the examples have"),
        (["adapter=lora"], "purpose: is pretrain, which trains all weights; "),
        (["parallel.tensor=3"], "parallel.tensor: groups of parallel.sequence x parallel.tensor = 3 ranks cannot"),
        (["output=/nowhere/plan.json"], "output: cannot write /nowhere/plan.json: "),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
@pytest.mark.slow
def test_mistakes_are_told_in_one_line(overrides, line):
    done = run("framework.plan", "model=llama_1b", *overrides)
    assert done.returncode == 2
    assert done.stderr.startswith(f"loam: error: {line}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_the_largest_micro_batch_is_the_last_that_fits():
    """Against trying each."""
    from framework.model.huggingface import parameter_shapes
    from framework.planning.memory import memory_of
    from framework.planning.parameters import parameters_of

    config = PlanConfig(batch=BatchConfig(sequences=96, micro=1))
    config.model.vocabulary_size, config.data.sequence_length = 5000, 512
    parameters = parameters_of(config, parameter_shapes(config.model))
    for rows in (1, 5, 12, 24):
        limit = memory_of(config, parameters, 1, rows).total
        fitting = [m for m in range(1, 97) if 96 % m == 0 and memory_of(config, parameters, 1, m).total <= limit]
        assert largest(config, parameters, limit) == max(fitting)
    assert largest(config, parameters, 1.0) == 1
