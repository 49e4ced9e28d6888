"""What a machine gives a process: memory, files, cores, GPUs."""

import os
import resource
import shutil
from pathlib import Path

from framework.diagnosis.finding import Finding, breaks, doubt
from framework.page.wording import size

SHARED_MEMORY = 1_000_000_000  # bytes that NCCL's guide asks for in containers (troubleshooting, "Shared memory")
FILES = 1024  # open files that a rank needs beside those it holds to each other rank
FILES_A_RANK = 8


def check_shared_memory(gpus: int, path: Path = Path("/dev/shm")) -> list[Finding]:
    """The ranks of one machine talk through it, over NCCL; Docker gives a container 64 MB."""
    subject = f"{path}"
    if not path.is_dir():
        return [doubt(subject, "is not there", "mount a tmpfs on it")]
    free = shutil.disk_usage(path).free
    if free >= SHARED_MEMORY:
        return [Finding(subject, f"{size(free)} free")]
    remedy = "give it 1 GB or more: docker run --shm-size=1g, an emptyDir of medium Memory on Kubernetes"
    tell = breaks if gpus > 1 else doubt
    return [tell(subject, f"{size(free)} free, and GPUs of one machine exchange through it", remedy)]


def check_limits(world_size: int) -> list[Finding]:
    """ulimits."""
    needed = FILES + FILES_A_RANK * world_size
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    fact = f"{'no limit' if files == resource.RLIM_INFINITY else files}, {world_size} ranks need about {needed}"
    sound = files == resource.RLIM_INFINITY or files >= needed
    remedy = "ulimit -n 65536 before the start, or LimitNOFILE= of the service that starts it"
    findings = [Finding("open files", fact) if sound else breaks("open files", fact, remedy)]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    fact = "no limit" if locked == resource.RLIM_INFINITY else size(locked)
    if locked != resource.RLIM_INFINITY and _has_infiniband():
        findings.append(breaks("locked memory", f"{fact}, and InfiniBand locks what it sends", "ulimit -l unlimited"))
    else:
        findings.append(Finding("locked memory", fact))
    return findings


def _has_infiniband() -> bool:
    place = Path("/sys/class/infiniband")
    return place.is_dir() and any(place.iterdir())


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """Cores that this process may use: of its affinity, and of the share that a container has."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        allowed, period = quota.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if allowed == "max" else min(cores, int(allowed) / int(period))


def check_cores(ranks: int, cores: float, threads: str) -> list[Finding]:
    """Whether the ranks of this machine fit onto its cores.

    Args:
        ranks: of this machine.
        cores: that they may use.
        threads: OMP_NUM_THREADS; empty where it is not set.
    """
    import psutil

    frequency = psutil.cpu_freq()
    told = f"{cores:g}" + (f" at {frequency.current / 1000:.1f} GHz" if frequency and frequency.current else "")
    each = int(threads) if threads.isdecimal() else 1 if ranks > 1 else int(cores) or 1  # as torchrun sets it
    fact = f"{told}; {ranks} ranks of {each} threads each"
    if ranks > cores:
        return [doubt("cores", fact, "start fewer ranks: they take turns otherwise")]
    if ranks * each > cores:
        return [doubt("cores", fact, f"set OMP_NUM_THREADS={max(1, int(cores // ranks))}")]
    return [Finding("cores", fact)]


def check_memory() -> list[Finding]:
    """Host memory; the run's own look at what it needs is made when it starts."""
    import psutil

    memory = psutil.virtual_memory()
    fact = f"{size(memory.available)} of {size(memory.total)} free"
    if memory.available < memory.total / 10:
        return [doubt("memory", fact, "end what else runs here")]
    return [Finding("memory", fact)]


def check_gpus(ranks: int) -> list[Finding]:
    """One GPU a rank, and nobody else on it."""
    import torch

    if not torch.cuda.is_available():
        return []
    count = torch.cuda.device_count()
    findings = []
    if ranks > count:
        remedy = "start as many ranks as GPUs, or set CUDA_VISIBLE_DEVICES= to train on the CPU"
        findings.append(breaks("GPUs", f"{count}, and {ranks} ranks want one each", remedy))
    for number in range(count):
        free, total = torch.cuda.mem_get_info(number)
        fact = f"{torch.cuda.get_device_name(number)}, {size(free)} of {size(total)} free"
        busy = free < 0.9 * total
        name = f"GPU {number}"
        findings.append(doubt(name, fact, "see with nvidia-smi who else is there") if busy else Finding(name, fact))
    return findings
