"""torchrun, after a look whether the nodes can meet, and with an exit code that says what to do next.

    python -m framework.launcher --nnodes 2 --node-rank 0 --nproc-per-node 8 --master-addr 10.0.0.1 \
        -m framework.pretrain run.name=first

takes torchrun's arguments, and its PET_... variables. torchrun itself waits ten minutes for an address that is wrong,
and means this machine by an address that was not given. It ends with 1 whatever its ranks ended with; here it is the
code of the rank that ended first (`framework.app`), and 75, start again to go on, where a signal ended them.
"""

import importlib.util
import os
import sys
from typing import Any

from framework import rendezvous
from framework.errors import UserError
from framework.rendezvous import Meeting

STOPPED = 75  # EX_TEMPFAIL, as `framework.app` has it
TOLD = (2, 70, STOPPED)  # codes of ranks that have said in a line why they ended
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # handed on to the ranks, for which the last one means: stop


def main() -> None:
    """Meet, run, and end with the code of the ranks."""
    from torch.distributed import run

    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", SIGNALS)
    parser = run.get_args_parser()
    if "PET_MASTER_ADDR" not in os.environ:
        parser.set_defaults(master_addr="")  # torchrun's own is this machine
    try:
        if len(sys.argv) == 1 or sys.argv[-1] in ("-m", "--module"):
            raise UserError("nothing to start: name an entry point, e.g. framework.pretrain, and its settings")
        look(parser.parse_args())
    except UserError as error:
        print(f"loam: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(2)
    sys.exit(_launch(run.parse_args(sys.argv[1:])))


def look(options: Any) -> None:
    """Let the nodes meet, where there are several.

    Args:
        options: what torchrun's parser makes of its arguments.

    Raises:
        UserError: they cannot; see `framework.rendezvous`.
    """
    nodes = _nodes(options.nnodes)
    ranks = str(options.nproc_per_node)
    if ranks not in ("auto", "gpu", "cpu", "xpu") and not (ranks.isdecimal() and int(ranks)):
        raise UserError(f"RANKS: {ranks!r} is no number of ranks; give 1 or more, or auto (--nproc-per-node)")
    if options.module and not _is_module(options.training_script):
        raise UserError(f"{options.training_script}: there is no such module; start e.g. framework.pretrain")
    if options.standalone or nodes == 1:
        return
    endpoint = options.rdzv_endpoint
    port = options.master_port or 29500  # torchrun's own
    if options.rdzv_backend == "static" and not endpoint:
        if not options.master_addr:
            raise UserError(
                f"MASTER_ADDR: is not given, and there are {nodes} nodes; give the address of node 0, the same on "
                "every node (--master-addr)"
            )
        if not 0 <= options.node_rank < nodes:
            raise UserError(f"NODE_RANK: is {options.node_rank}, and there are {nodes} nodes; use 0 to {nodes - 1}")
        rendezvous.meet(Meeting(nodes, options.node_rank, options.master_addr, port, wait=rendezvous.patience()))
    elif endpoint:
        rendezvous.reach(_from_endpoint(nodes, endpoint))


def _launch(options: Any) -> int:
    """Run the ranks of this node; returns the exit code."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(options)
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        if first.exitcode not in TOLD:
            print(failed, file=sys.stderr, flush=True)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode  # a signal's, as shells have it
    except SignalException as signalled:
        print(f"loam: the launcher was sent {signalled.sigval.name}", file=sys.stderr, flush=True)
        return STOPPED
    return 0


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # of what it is in
        return False


def _nodes(text: str) -> int:
    from torch.distributed.run import parse_min_max_nnodes

    try:
        nodes = int(parse_min_max_nnodes(text)[1])
        if nodes < 1:
            raise ValueError(text)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"NODES: {text!r} is no number of nodes; give how many there are (--nnodes)") from error
    return nodes


def _from_endpoint(nodes: int, endpoint: str) -> Meeting:
    from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint

    try:
        host, port = parse_rendezvous_endpoint(endpoint, 29400)  # c10d's own
    except ValueError as error:
        raise UserError(f"--rdzv-endpoint: {error}; give HOST:PORT") from error
    return Meeting(nodes, -1, host, port, asked_as="--rdzv-endpoint", wait=rendezvous.patience())


if __name__ == "__main__":
    main()
