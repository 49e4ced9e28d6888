"""The files of launch/ and docker/ are what the tools they are for take: linted, checked against schemas, resolved."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys

import jsonschema
import pytest
import yaml

from tests.launch import ENVIRONMENT, ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
DOCKERFILES = ("Dockerfile", "Dockerfile.cpu")
JOBSET = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
POD = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
SCHEMA = json.loads((ROOT / "tests" / "launching" / "jobset.schema.json").read_text())


def tool(name):
    found = shutil.which(name, path=f"{sys.prefix}/bin")
    return found or pytest.skip(f"{name} is not installed: pip install 'loam[development]'")


# ---------------------------------------------------------------------------------------------- launch/


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_pass_shellcheck(script):
    done = subprocess.run([tool("shellcheck"), str(ROOT / "launch" / script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_shellcheck_would_find_something(tmp_path):
    (tmp_path / "bad.sh").write_text("#!/usr/bin/env bash\nrm -rf $1/*\n")
    assert subprocess.run([tool("shellcheck"), str(tmp_path / "bad.sh")], capture_output=True).returncode == 1


def test_the_jobset_follows_the_schema_of_its_definition():
    jsonschema.validate(JOBSET, SCHEMA)
    assert (JOBSET["apiVersion"], JOBSET["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (JOBSET["spec"]["replicatedJobs"][0], "replica", 1),
        (JOBSET["spec"]["failurePolicy"], "maxRestarts", "many"),
        (POD, "terminationGracePeriod", 300),
        (POD["containers"][0], "image", ["a"]),
    ],
    ids=["replica", "maxRestarts", "terminationGracePeriod", "image"],
)
def test_the_schema_refuses_what_kubernetes_would(where, name, value):
    before = where.get(name)
    where[name] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(JOBSET, SCHEMA)
    if before is None:
        del where[name]
    else:
        where[name] = before


def test_the_jobset_says_the_same_everywhere():
    job = JOBSET["spec"]["replicatedJobs"][0]["template"]["spec"]
    container = POD["containers"][0]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert job["parallelism"] == job["completions"] == int(variables["NODES"])
    assert int(variables["RANKS"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < POD["terminationGracePeriodSeconds"]
    rule = job["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert (rule["containerName"], rule["values"]) == (container["name"], [2])
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    coordinator = JOBSET["spec"]["coordinator"]
    assert coordinator["replicatedJob"] == JOBSET["spec"]["replicatedJobs"][0]["name"]
    assert (ROOT / container["command"][0]).exists()


@pytest.mark.slow
def test_the_jobset_runs_what_it_names(tmp_path):
    """The command and the arguments, with the entry point's own look at them."""
    container = POD["containers"][0]
    overrides = [word for word in container["args"] if not word.startswith(("run.directory", "data.path"))]
    command = [sys.executable, "-m", container["command"][1], *overrides, f"run.directory={tmp_path}"]
    done = subprocess.run([*command, "--cfg", "job"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["precision"]["dtype"] == "bf16"


# ---------------------------------------------------------------------------------------------- docker/


def instructions(name):
    """(word, rest) of each instruction of a Dockerfile."""
    text = re.sub(r"\\\n", " ", (ROOT / "docker" / name).read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def in_context(path):
    """Whether .dockerignore lets a path of the repository into the image."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return any(path == entry or path.startswith(entry + "/") for entry in allowed)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_dockerfiles_pass_hadolint(name):
    done = subprocess.run([tool("hadolint"), str(ROOT / "docker" / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_and_run_as_nobody_in_particular(name):
    steps = instructions(name)
    base = dict(rest.split("=", 1) for word, rest in steps if word == "ARG")["BASE"]
    assert re.fullmatch(r"[a-z/]+:[\w.-]+@sha256:[0-9a-f]{64}", base)
    assert all(rest.split()[0] in ("${BASE}", "base") for word, rest in steps if word == "FROM")
    assert [rest for word, rest in steps if word == "USER"] == ["10001"]
    assert [rest for word, rest in steps if word == "FROM"][-1] in (
        "base",
        "${BASE}",
    )  # not what packages were built in
    names = " ".join(rest for word, rest in steps if word in ("ARG", "ENV"))
    assert not re.search(r"(?i)token|secret|password|_key", names)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_there_and_let_in(name):
    for word, rest in instructions(name):
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            for source in sources:
                assert source == "." or ((ROOT / source).exists() and in_context(source)), source


@pytest.mark.slow
def test_what_an_image_holds_is_enough_to_run(tmp_path):
    """What git has and .dockerignore lets in, and nothing else."""
    known = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for path in filter(in_context, known.stdout.splitlines()):
        if (ROOT / path).exists():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, tmp_path / path)
    assert not fnmatch.filter([path.name for path in tmp_path.iterdir()], "tests")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(tmp_path)}
    for module in ("pretrain", "prepare"):
        command = [sys.executable, "-m", f"framework.{module}", "--cfg", "job", "experiment=demo"][
            : 5 + (module[3] == "t")
        ]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    places = [path for corpus in yaml.safe_load(done.stdout)["corpora"].values() for path in corpus["paths"]]
    assert places
    assert all(list(tmp_path.glob(path)) for path in places)


def test_the_compose_file_resolves_to_two_nodes_that_fit_together():
    command = [tool("docker-compose"), "-f", str(ROOT / "docker" / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    nodes = [services["node-0"], services["node-1"]]
    assert [node["environment"]["NODE_RANK"] for node in nodes] == ["0", "1"]
    for node in nodes:
        assert node["environment"]["NODES"] == "2"
        assert node["environment"]["MASTER_ADDR"] == nodes[0]["hostname"]
        assert node["command"] == nodes[0]["command"]
        assert (ROOT / node["command"][0]).exists()
        assert (ROOT / "docker" / node["build"]["dockerfile"].removeprefix("docker/")).exists()
        assert node["depends_on"] == {"prepare": {"condition": "service_completed_successfully", "required": True}}
    assert services["prepare"]["volumes"] == nodes[0]["volumes"] == nodes[1]["volumes"]
