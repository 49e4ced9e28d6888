"""The same bits from every run of the same layout, where the hardware's fastest way does not give them."""

import os

import torch
import torch.utils.deterministic


def make_deterministic() -> None:
    """Choose, from here on, operations that always add in the same order; one that has no such way raises.

    On a CPU a run is deterministic anyway, as long as the number of threads stays. On a GPU, atomic additions
    (embedding and attention gradients) and cuBLAS's choice of workspace are what differs from run to run; see
    PyTorch's notes on reproducibility, https://docs.pytorch.org/docs/stable/notes/randomness.html. Call it before
    the first matrix product on a GPU, as cuBLAS reads its setting then. NCCL's choice of algorithm depends on the
    topology alone, so the same layout reduces in the same order.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # filling every new tensor is for those who read memory they have not written, which we do not
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
