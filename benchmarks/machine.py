"""What a figure was measured on."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path


def machine(*packages: str) -> str:
    """One line: processor, cores, Python, and the versions of the packages that are installed."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = processors[0].partition(":")[2].strip() if processors else platform.processor()
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}, {', '.join(versions)}"


def accelerator() -> str:
    """One line: the GPU, its multiprocessors and memory, and the versions of driver, CUDA (or ROCm) and cuDNN."""
    import torch

    if not torch.cuda.is_available():
        return "no GPU"
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    runtime = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
    return (
        f"{properties.name}, {properties.multi_processor_count} multiprocessors, "
        f"{properties.total_memory / 2**30:.0f} GiB, driver {_driver()}, {runtime}, "
        f"cuDNN {torch.backends.cudnn.version()}"
    )


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"
