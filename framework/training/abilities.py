"""What settings demand of the machine, asked before anything is made: a compiler, a library, a kind of GPU."""

import importlib.util
import os
import shutil
from pathlib import Path

import torch

from framework.checks import require
from framework.config import PretrainConfig


def check_machine(config: PretrainConfig) -> None:
    """Raise `UserError` naming the field and the remedy where this machine lacks what the settings need."""
    if config.compile:
        _check_compilers(torch.cuda.is_available())
    if config.zero.offload == "nvme":
        _check_offload_path(Path(config.zero.offload_path))
        _check_asynchronous_io()


def _check_compilers(cuda: bool) -> None:
    """Inductor writes C++ for the CPU; for a GPU it writes Triton, whose launcher is C."""
    variable, usual = ("CC", "gcc") if cuda else ("CXX", "g++")
    compiler = os.environ.get(variable) or usual
    remedy = f"install it, set {variable} to one that there is, or set compile=false"
    require(shutil.which(compiler) is not None, "compile", f"needs a compiler, and there is no {compiler}", remedy)
    require(
        not cuda or importlib.util.find_spec("triton") is not None,
        "compile",
        "needs Triton on a GPU, and it is not installed",
        "pip install 'loam[triton]', or set compile=false",
    )


def _check_offload_path(path: Path) -> None:
    problem = "is no directory" if not path.is_dir() else "cannot be written"
    usable = path.is_dir() and os.access(path, os.W_OK)
    require(usable, "zero.offload_path", f"{path} {problem}", "name one on a fast local disk of every node")


def _check_asynchronous_io() -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    require(
        AsyncIOBuilder().is_compatible(verbose=False),
        "zero.offload",
        "nvme needs libaio and its headers, and a compiler that finds them",
        "install libaio-dev (libaio-devel) and g++, or choose zero.offload=cpu",
    )
