"""Names and variables: what the environment tells a run that its user may not know of."""

import os
import socket
from collections.abc import Mapping

from framework import rendezvous
from framework.diagnosis.finding import Finding, breaks, doubt

FAMILIES = ("NCCL_", "GLOO_", "TORCH_NCCL_", "DS_", "CUDA_", "OMP_", "TRITON_", "LOAM_", "PYTORCH_", "UCX_", "FI_")
SLOW = {  # variable, the value that costs, and what it does
    "CUDA_LAUNCH_BLOCKING": ("1", "waits for every kernel"),
    "NCCL_P2P_DISABLE": ("1", "keeps GPUs of one machine from talking directly"),
    "NCCL_IB_DISABLE": ("1", "keeps NCCL off InfiniBand"),
    "NCCL_SHM_DISABLE": ("1", "keeps GPUs of one machine from exchanging through memory"),
    "TORCH_DISTRIBUTED_DEBUG": ("DETAIL", "checks every collective"),
    "TRITON_INTERPRET": ("1", "runs Triton kernels in Python"),
}


def check_variables(environment: Mapping[str, str]) -> list[Finding]:
    """Those that change how a run behaves."""
    findings = []
    for name, (value, effect) in SLOW.items():
        if environment.get(name, "") == value:
            findings.append(doubt(f"{name}={value}", effect, f"unset {name} unless that is what you want"))
    if environment.get("WORLD_SIZE", "1") != "1" and "RANK" not in environment:
        fact = f"WORLD_SIZE={environment['WORLD_SIZE']} without RANK"
        findings.append(breaks("launcher", fact, "start with the files in launch/, or unset WORLD_SIZE"))
    tasks = environment.get("SLURM_NTASKS", "1")
    if tasks != "1" and "RANK" not in environment and "SLURM_STEP_ID" in environment:
        fact = f"Slurm started {tasks} processes that do not know of one another: each would train alone"
        findings.append(breaks("launcher", fact, "start with launch/slurm.sbatch"))
    rest = {n: v for n, v in environment.items() if n.startswith(FAMILIES) and n not in SLOW}
    set_ = ", ".join(f"{name}={value}" for name, value in sorted(rest.items()))
    return [*findings, Finding("variables", set_ or "none that bear on a run")]


def check_interfaces(environment: Mapping[str, str], known: set[str]) -> list[Finding]:
    """Interfaces that the environment names have to be there. `known` are those that are."""
    findings = []
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        wanted = environment.get(name, "")
        if not wanted or wanted.startswith("^"):
            continue
        prefixes = [one.removeprefix("=") for one in wanted.split(",")]
        exact = name.startswith("GLOO") or wanted.startswith("=")
        there = [one for one in prefixes if (one in known if exact else any(k.startswith(one) for k in known))]
        if not there:
            fact = f"{wanted} is no interface here; there are {', '.join(sorted(known))}"
            findings.append(breaks(name, fact, f"unset it, or name one of these on every machine alike: {name}=..."))
    return findings


def check_master(environment: Mapping[str, str], machines: int) -> list[Finding]:
    """What MASTER_ADDR and this machine's own name stand for."""
    if machines < 2 or "MASTER_ADDR" not in environment:
        return []
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    try:
        numbers = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(address, port)})
    except OSError as error:
        return [breaks("MASTER_ADDR", f"{address}: {error.strerror}", "give the address of node 0")]
    findings = []
    told = address if [address] == numbers else f"{address}, which is {', '.join(numbers)} here"
    if any(map(rendezvous.is_loopback, numbers)):
        findings.append(
            breaks("MASTER_ADDR", f"{told}: each machine itself", "give an address of node 0 that all others reach")
        )
    else:
        findings.append(Finding("MASTER_ADDR", told))
    return findings + _own_name(environment)


def _own_name(environment: Mapping[str, str]) -> list[Finding]:
    name = socket.gethostname()
    try:
        own = socket.gethostbyname(name)
        local = rendezvous.is_loopback(own)
        fact = f"{name} is {own} here"
    except OSError:
        local, fact = True, f"{name} has no address here"
    interface = environment.get("GLOO_SOCKET_IFNAME") or rendezvous.interface_towards(
        environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    )
    if interface:
        return [Finding("own name", f"{fact}; gloo listens on {interface}")]
    if local:
        remedy = "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the interface towards the others"
        return [breaks("own name", f"{fact}, where gloo would listen, and no other machine reach it", remedy)]
    return [Finding("own name", fact)]


def environment_here() -> dict[str, str]:
    """Of this process."""
    return dict(os.environ)


def interfaces() -> set[str]:
    """Names of the network interfaces of this machine."""
    return {name for _, name in socket.if_nameindex()}
