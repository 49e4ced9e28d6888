"""All checks, on all ranks, to one list on rank 0."""

import socket
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from framework import distributed, places
from framework.config import DoctorConfig
from framework.diagnosis import collectives, disks, machine, peers, software, surroundings
from framework.diagnosis.board import Board
from framework.diagnosis.finding import Finding, Level, breaks, joined
from framework.diagnosis.peers import Answer, Station

MEGA = 1_000_000
PATIENCE = 300.0  # seconds that the slowest disk, and many peers, may take


def examine(config: DoctorConfig) -> list[Finding]:
    """What there is to say about the job, on every rank.

    Raises:
        UserError: this rank cannot even reach the job's store.
    """
    board = Board(config.wait)
    station = Station()
    own = {"host": socket.gethostname(), "address": peers.own_address(), "port": station.port}
    stations = board.exchange("station", own)
    missing = [rank for rank, found in enumerate(stations) if found is None]
    if missing:
        ranks = ", ".join(map(str, missing))
        remedy = "see whether they were started, what ended them, and whether they reach MASTER_ADDR"
        return [breaks("ranks", f"{ranks} of {board.ranks} were not heard of within {config.wait:g} s", remedy)]
    machines = len({(found["host"], found["address"]) for found in stations})
    found = _of_this_machine(config, machines) if distributed.local_rank() == 0 else None
    said = board.exchange("machine", None if found is None else [asdict(one) for one in found], patience=PATIENCE)
    places_ = [(stations[rank]["host"], [_revived(f) for f in facts]) for rank, facts in enumerate(said) if facts]
    findings = joined(places_)
    findings += _same_everywhere(board)
    findings += _shared_disk(board, config, machines)
    findings += peers.check_names(stations)
    findings += _network(board, stations, config)
    station.close()
    board.part()
    return findings


def _of_this_machine(config: DoctorConfig, machines: int) -> list[Finding]:
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    environment = surroundings.environment_here()
    threads, ranks = environment.get("OMP_NUM_THREADS", ""), distributed.ranks_here()
    checks: list[Callable[[], list[Finding]]] = [
        lambda: software.check_versions(software.installed(), software.ranges(), gpus > 0),
        software.check_shadows,
        software.check_cuda,
        lambda: machine.check_gpus(ranks),
        lambda: machine.check_cores(ranks, machine.usable_cores(), threads),
        machine.check_memory,
        lambda: machine.check_shared_memory(gpus),
        lambda: machine.check_limits(distributed.world_size()),
        lambda: surroundings.check_variables(environment),
        lambda: surroundings.check_interfaces(environment, surroundings.interfaces()),
        lambda: surroundings.check_master(environment, machines),
        lambda: disks.check_disk("run directory", Path(config.directory), config.disk_megabytes * MEGA),
    ]
    if config.data:
        checks.append(lambda: disks.check_data(config.data))
        if not places.is_remote(config.data):
            checks.append(lambda: disks.check_disk("data", Path(config.data), config.disk_megabytes * MEGA))
    return [finding for check in checks for finding in check()]


def _same_everywhere(board: Board) -> list[Finding]:
    """Versions that differ between machines."""
    told = board.exchange("versions", software.installed())
    findings = []
    for name in told[0]:
        versions: dict[str, list[str]] = {}
        for rank, facts in enumerate(told):
            if facts is not None:
                versions.setdefault(facts[name] or "none", []).append(str(rank))
        if len(versions) > 1:
            fact = "; ".join(f"{version} on ranks {', '.join(ranks)}" for version, ranks in versions.items())
            findings.append(breaks(name, fact, "install the same everywhere: pip install -c constraints.txt"))
    return findings


def _shared_disk(board: Board, config: DoctorConfig, machines: int) -> list[Finding]:
    if machines == 1:
        return []
    name = board.exchange("mark", uuid.uuid4().hex)[0]
    directory = Path(config.directory)
    if board.rank == 0:
        disks.mark(directory, name)
    board.exchange("marked", True)
    own = disks.check_shared(directory, name)
    seen = board.exchange("seen", [asdict(one) for one in own])
    if board.rank == 0:
        (directory / name).unlink(missing_ok=True)
    return joined([(f"rank {rank}", [_revived(fact) for fact in facts]) for rank, facts in enumerate(seen) if facts])


def _network(board: Board, stations: list[Any], config: DoctorConfig) -> list[Finding]:
    if board.ranks == 1:
        return []
    answers = peers.call_all(stations, board.rank, config.timeout)
    told = board.exchange("answers", [None if one is None else asdict(one) for one in answers], patience=PATIENCE)
    table = [[None if one is None else Answer(**one) for one in row or []] for row in told]
    reach = peers.check_reach(stations, table)
    found = reach + peers.check_clocks(stations, [row[0] if row else None for row in table])
    if any(finding.breaks for finding in reach):
        return found  # collectives would only wait
    summed = collectives.check_collectives(board, config.timeout, config.network_megabytes * MEGA)
    said = board.exchange("collectives", [asdict(one) for one in summed], patience=PATIENCE)
    worst = [[_revived(fact) for fact in facts] for facts in said if facts]
    bad = joined([(f"rank {rank}", [f for f in facts if f.breaks]) for rank, facts in enumerate(worst)])
    return found + (bad or worst[0])


def _revived(fact: dict[str, Any]) -> Finding:
    return Finding(**{**fact, "level": Level(fact["level"])})
