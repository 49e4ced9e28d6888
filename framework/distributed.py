"""The ranks of a job: who am I, and how do we agree.

`torchrun` and the `deepspeed` launcher both describe the job in the environment (RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR, MASTER_PORT); without them the job is this one process. Control messages
travel over gloo, so they need no GPU; tensors on a GPU travel over NCCL.
"""

import atexit
import logging
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from framework import job_store, rendezvous
from framework.errors import UserError

T = TypeVar("T")


def rank() -> int:
    """Number of this process in the job, 0 to `world_size() - 1`."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes in the job."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """Number of this process on its machine; its GPU has the same number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def ranks_here() -> int:
    """Number of this job's processes on this machine; all of them, where the launcher does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or world_size())


def start() -> None:
    """Join the job's process group, once. A lone process gets a group of its own, without a socket."""
    import torch
    import torch.distributed as dist

    global _start_name
    if dist.is_initialized():
        return
    require_environment()
    name_interface()
    cuda = torch.cuda.is_available()
    if cuda:
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"ranks: local rank {local_rank()} has no GPU, this machine has {torch.cuda.device_count()}; "
                "start as many ranks as GPUs, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
            )
        torch.cuda.set_device(local_rank())
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    if "RANK" in os.environ and job_store.kept_by_launcher():
        store = job_store.connect(job_store.LONGEST_WAIT.total_seconds())
        _start_name = job_store.agree_on_start(store, rank(), world_size())
        named = dist.PrefixStore(_start_name, store)
        dist.init_process_group(backend, store=named, rank=rank(), world_size=world_size())
    elif "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def require_environment() -> None:
    """Raise UserError if the launcher has told half of what a rank needs: torch would take the rest for granted."""
    if world_size() == 1:
        return
    for name, means in (
        ("RANK", "the number of this process"),
        ("MASTER_ADDR", "the address of the machine that rank 0 is on"),
        ("MASTER_PORT", "a free port of the machine that rank 0 is on"),
    ):
        if not os.environ.get(name):
            raise UserError(
                f"{name}: is not set, and WORLD_SIZE={world_size()}; start with torchrun or the files in launch/, or "
                f"set it to {means}"
            )


def name_interface() -> None:
    """Let gloo listen where rank 0's machine is reached from.

    Left alone it takes the address that the machine's own name has, which is loopback where /etc/hosts says 127.0.1.1,
    as Debian's does, or where it has no address at all; and then other machines cannot reach it.
    """
    alone = {os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("LOCAL_SIZE")} & {str(world_size())}
    if alone or "MASTER_ADDR" not in os.environ or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    name = rendezvous.interface_towards(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    if name:
        os.environ["GLOO_SOCKET_IFNAME"] = name


def leave(code: int) -> NoReturn:
    """End this process with `code`; without an error, once every rank has got there.

    A member of a process group ends without the interpreter's own teardown, in which the group's threads, still
    alive, now and then abort the process ("terminate called without an active exception") after all its work.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        sys.exit(code)
    if code == 0:
        gather(None)
    else:  # a launcher sends SIGTERM to the ranks that end last; they shall end with their code all the same
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit._run_exitfuncs()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def broadcast(message: Any) -> Any:
    """Rank 0's `message`, on every rank."""
    if world_size() == 1:
        return message
    import torch
    import torch.distributed as dist

    start()
    box = [message]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def gather(item: Any, group: Any = None) -> list[Any]:
    """The `item` of every rank, in rank order, on every rank; over a group that `new_control_group` made, perhaps."""
    if world_size() == 1:
        return [item]
    import torch.distributed as dist

    start()
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item, group=group or _control_group())
    return items


def new_control_group(timeout: timedelta) -> Any:
    """A group of all ranks for the objects of one thread; its own, as a group is for one thread at a time."""
    if world_size() == 1:
        return None
    import torch.distributed as dist

    start()
    return dist.new_group(backend="gloo", timeout=timeout)


def board(seconds: float) -> Any:
    """A connection of its own to keys that every rank of this start of the job can read and set; None if it has one.

    seconds: that connecting, and each request, may take; a RuntimeError afterwards.
    """
    if world_size() == 1:
        return None
    from torch.distributed import PrefixStore

    return PrefixStore(f"{_start_name}/board", job_store.connect(seconds))


def _control_group() -> Any:
    """A gloo group for objects; the default group where that is gloo already."""
    import torch.distributed as dist

    global _gloo_group
    if dist.get_backend() == "gloo":
        return None
    if _gloo_group is None:
        _gloo_group = dist.new_group(backend="gloo")
    return _gloo_group


_gloo_group: Any = None
_start_name = "start"  # that tells the keys of this start of the job from those of earlier ones


class StoppedByAnotherRankError(Exception):
    """Another rank met a `UserError` and has reported it; this one leaves quietly, with code 2."""


def agreed(error: UserError) -> Exception:
    """What each rank raises for an error that all ranks have met alike: one line for the user, not one a rank."""
    return error if rank() == 0 else StoppedByAnotherRankError()


def together(action: Callable[[], T], group: Any = None) -> T:
    """Run `action` on every rank; if it is a `UserError` on any of them, no rank goes on.

    The lowest failing rank raises its error, the others leave quietly: one line for the user, and
    nobody left waiting in a collective. What `action` does may itself be done together.
    """
    result: T | None = None
    error: Exception | None = None
    try:
        result = action()
    except (UserError, StoppedByAnotherRankError) as problem:
        error = problem
    found = gather((error is not None, isinstance(error, UserError)), group)
    if not any(failed for failed, _ in found):
        return result  # type: ignore[return-value]
    if rank() == next((number for number, (_, tells) in enumerate(found) if tells), -1):
        assert error is not None
        raise error
    raise StoppedByAnotherRankError
