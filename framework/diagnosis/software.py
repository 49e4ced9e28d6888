"""Versions, against the ranges that Loam was made for."""

import importlib.util
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from framework import __version__
from framework.diagnosis.finding import Finding, breaks, doubt

HOUSE = Path(__file__).resolve().parent.parent.parent
LOOKED_AT = ("torch", "deepspeed", "triton", "numpy", "safetensors", "sentencepiece", "webdataset")
OWN = ("framework", "kernels", "configs", "hydra_plugins")
SMI_SECONDS = 20.0  # that nvidia-smi may take: it wakes sleeping GPUs


def ranges(house: Path = HOUSE) -> dict[str, Any]:
    """The versions of each package that the project admits (`packaging` specifiers), and of Python."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    project = house / "pyproject.toml"
    if project.exists():
        import tomllib

        facts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        lines = [*facts["dependencies"], *(one for extra in facts["optional-dependencies"].values() for one in extra)]
        python = facts["requires-python"]
    else:  # installed from a wheel
        lines = metadata.requires("loam") or []
        python = metadata.metadata("loam")["Requires-Python"]
    found = {requirement.name: requirement.specifier for requirement in map(Requirement, lines)}
    return {name: specifier for name, specifier in found.items() if name in LOOKED_AT} | {
        "python": SpecifierSet(python)
    }


def installed() -> dict[str, str]:
    """Versions of what is looked at, and of Loam and Python; empty where it is not installed."""
    found = {"loam": __version__, "python": platform.python_version()}
    for name in LOOKED_AT:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def check_versions(found: dict[str, str], admitted: dict[str, Any], gpus: bool) -> list[Finding]:
    """Each package against its range."""
    findings = [Finding("loam", found["loam"])]
    for name, specifier in admitted.items():
        version = found[name]
        told = f"{version or 'not installed'}, {specifier} is admitted" if str(specifier) else version
        if version and specifier.contains(version, prereleases=True):
            findings.append(Finding(name, told))
        elif not version and name == "triton" and not gpus:
            findings.append(Finding(name, "not installed, and not needed without a GPU"))
        else:
            remedy = "pip install 'loam[all]' -c constraints.txt"
            findings.append(breaks(name, told, remedy))
    return findings


def check_shadows() -> list[Finding]:
    """Packages of our own that another of the same name hides."""
    findings = []
    for name in OWN:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or []) if spec else []
        if str(HOUSE / name) not in [str(Path(place).resolve()) for place in places]:
            findings.append(
                breaks(
                    f"package {name}",
                    f"is {places[0] if places else 'nowhere'}, not {HOUSE / name}",
                    "take what hides it off PYTHONPATH, or start where it does not lie in the working directory",
                )
            )
    return findings


def driver() -> str:
    """Version of NVIDIA's driver; empty where there is none, or it does not answer."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    numbers = re.findall(r"^[\d.]+$", done.stdout, re.M)
    return numbers[0] if numbers else ""


def check_cuda() -> list[Finding]:
    """Whether torch can use the GPUs that there are."""
    import torch

    version, has_driver = driver(), Path("/dev/nvidiactl").exists()
    if torch.cuda.is_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))
        return [Finding("CUDA", f"torch's {torch.version.cuda}, driver {version or 'unknown'}, NCCL {nccl}")]
    if not version and not has_driver:
        return [Finding("CUDA", "no NVIDIA driver here: runs are on the CPU")]
    if torch.version.cuda is None:
        return [
            doubt(
                "CUDA", f"driver {version}, but this torch was built for CPUs", "install a torch for GPUs to use them"
            )
        ]
    return [breaks("CUDA", f"driver {version or 'there'}, {_why_not()}", _remedy_for_cuda())]


def _why_not() -> str:
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return f"torch for CUDA {torch.version.cuda} says: {' '.join(str(error).split())}"
    return "but torch sees no GPU"


def _remedy_for_cuda() -> str:
    return "update the driver, or install a torch for an older CUDA; see that CUDA_VISIBLE_DEVICES names GPUs"
