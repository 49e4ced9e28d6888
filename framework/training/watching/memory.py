"""Memory that a rank has needed so far, at most."""

import os
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def usage(device: torch.device) -> dict[str, int]:
    """Bytes by the names of the record: of the GPU that tensors took and that were reserved for them; without a
    GPU, resident in this process.
    """
    if device.type == "cuda":
        return {
            "memory/peak_bytes": torch.cuda.max_memory_allocated(device),
            "memory/reserved_bytes": torch.cuda.max_memory_reserved(device),
        }
    return {"memory/peak_bytes": _peak_resident()}


def there_are(device: torch.device, ranks: int) -> float:
    """Bytes of the GPU, or of this machine for each of the `ranks` that it has."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / ranks


def _peak_resident() -> int:
    """`getrusage` would also count what the process was that started this one, which is larger in some launchers."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
