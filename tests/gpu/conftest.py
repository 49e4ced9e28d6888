"""Where the tests of this directory run: a GPU, at real sizes; or, to try the tests themselves, the interpreter."""

from dataclasses import dataclass, replace

import pytest
import torch

import kernels
from tests.gpu.cases import Case

if kernels.INTERPRETED:
    from tests.interpreter import bf16

    bf16.install()

TINY = 64  # times shorter in the interpreter, which takes a second for what a GPU does in a microsecond


@dataclass(frozen=True)
class Place:
    """A device, and how large things are on it."""

    device: torch.device
    tiny: bool

    def size(self, case: Case) -> Case:
        """The case as it is run here: shorter and with fewer heads where it is interpreted."""
        if not self.tiny:
            return case
        groups = min(case.groups, 2)
        return replace(
            case,
            queries=self.length(case.queries),
            keys=self.length(case.keys),
            heads=groups * case.heads // case.groups,
            groups=groups,
            documents=self.length(case.documents) * bool(case.documents),
            window=self.length(case.window) * bool(case.window),
        )

    def length(self, tokens: int) -> int:
        """Tokens of a row, or of what a row is cut into."""
        return -(-tokens // TINY) if self.tiny else tokens


@pytest.fixture(scope="session")
def place():
    if kernels.INTERPRETED:
        return Place(torch.device("cpu"), tiny=True)
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU (or TRITON_INTERPRET=1, which tries the tests at tiny sizes on a CPU)")
    return Place(torch.device("cuda"), tiny=False)
