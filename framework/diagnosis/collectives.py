"""All-reduce over gloo and NCCL: is the sum right, and how fast does it come?"""

import os
import time
from datetime import timedelta
from typing import Any

from framework import distributed
from framework.diagnosis.board import Board
from framework.diagnosis.finding import Finding, breaks, doubt
from framework.page.wording import size

SMALL = 20  # all-reduces of one number, whose median counts
LARGE = 3  # of a large array, of which the quickest counts
CRAWL = 50_000_000  # bytes a second that a rank sends; a gigabit network has 125 MB/s


def check_collectives(board: Board, patience: float, amount: int) -> list[Finding]:
    """Of all ranks, over each backend that there is.

    Args:
        board: of the job.
        patience: seconds that a collective may take.
        amount: bytes of the large array.
    """
    import torch
    import torch.distributed as dist

    if board.ranks == 1:
        return []
    distributed.name_interface()
    backends = {"gloo": torch.device("cpu")}
    if torch.cuda.is_available() and distributed.local_rank() < torch.cuda.device_count():
        backends["nccl"] = torch.device("cuda", distributed.local_rank())
        torch.cuda.set_device(backends["nccl"])
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # or a collective that hangs would do so for good
    findings = []
    for backend, device in backends.items():
        named = dist.PrefixStore(backend, board.store)
        try:
            dist.init_process_group(
                backend, store=named, rank=board.rank, world_size=board.ranks, timeout=timedelta(seconds=patience)
            )
            findings.append(_measured(backend, device, board.ranks, amount))
            dist.destroy_process_group()
        except RuntimeError as error:
            line = " ".join(str(error).split())[:300]
            remedy = (
                "see the network above; NCCL_DEBUG=INFO tells more" if backend == "nccl" else "see the network above"
            )
            findings.append(breaks(f"{backend} all-reduce", line, remedy))
            break  # the group may be half there
    return findings


def _measured(backend: str, device: Any, ranks: int, amount: int) -> Finding:
    import torch
    import torch.distributed as dist

    def timed(tensor: Any) -> float:
        began = time.perf_counter()
        dist.all_reduce(tensor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    number = torch.full((1,), float(dist.get_rank() + 1), device=device)
    timed(number)
    expected = ranks * (ranks + 1) / 2
    if number.item() != expected:
        remedy = "this machine computes wrongly: try others"
        return breaks(f"{backend} all-reduce", f"the sum of 1 to {ranks} came to {number.item()}", remedy)
    latency = sorted(timed(number.zero_()) for _ in range(SMALL))[SMALL // 2]
    array = torch.ones(amount // 4, device=device)
    seconds = min(timed(array.fill_(1.0)) for _ in range(LARGE))
    if not torch.equal(array, torch.full_like(array, float(ranks))):
        return breaks(f"{backend} all-reduce", f"a sum of ones over {ranks} ranks is wrong", "try other machines")
    sent = 2 * (ranks - 1) / ranks * amount / seconds  # by each rank, in a ring (nccl-tests' bus bandwidth)
    fact = f"right on {ranks} ranks; one number {1e6 * latency:.0f} µs, {size(amount)} at {size(sent)}/s a rank"
    if sent < CRAWL:
        return doubt(f"{backend} all-reduce", fact, "see the interface, and that nothing else uses the network")
    return Finding(f"{backend} all-reduce", fact)
