"""Kernels run by Triton's interpreter, on tensors of the CPU: TRITON_INTERPRET=1 python -m pytest tests/interpreter.

Triton reads the variable when a kernel is defined, so one process is either interpreting or not: `make test` starts
pytest twice.
"""

from pathlib import Path

import pytest

import kernels

HERE = Path(__file__).parent

if kernels.INTERPRETED:
    from tests.interpreter import bf16

    bf16.install()


def pytest_collection_modifyitems(items):
    if not kernels.INTERPRETED:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs TRITON_INTERPRET=1, with which `make test` runs it"))
