"""A bug on one rank: its traceback is what the user sees, and the ranks that fail as a consequence say one line.

The rank that fails first pins what happened to the job's board (`distributed.board`), where the others find it
when their collectives break.
"""

import json
import logging
import os
import re
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from framework import distributed, heartbeat

logger = logging.getLogger("loam")

KEY = "failure"  # on the board
PATIENCE = 3.0  # seconds that the board may take to answer
COURTESY = 1.5  # seconds that a rank leaves to the one that failed, and to a launcher to see which one was killed
# what the backends say when a rank has gone
GONE = re.compile(r"closed|reset by peer|broken pipe|refused|timed out|timeout|remote process|NCCL|EOF|gloo", re.I)


def end(error: Exception) -> int:
    """Tell of what went wrong on this rank, or that it went wrong on another; returns the exit code."""
    if heartbeat.pulse.given_up:
        time.sleep(PATIENCE)  # the watchdog is telling why, and ends the process
    waited_in = broken_collective(error)
    if waited_in:
        _tell_consequence(waited_in, error)
        return 1
    text = "".join(traceback.format_exception(error))
    if logger.handlers:
        logger.error("%s", text.rstrip())
    print(text, end="", file=sys.stderr, flush=True)
    report = report_of(f"[rank {distributed.rank()}] {type(error).__name__}: {error}", py_callstack=text)
    write_error_file(report)
    _pin(report)
    return 1


def broken_collective(error: Exception) -> str | None:
    """The collective that failed because another rank is gone; None for every other error."""
    names = _collectives(error.__traceback__)
    if not names or not isinstance(error, RuntimeError) or not GONE.search(str(error)):
        return None
    return names[0]


def _collectives(trace: TracebackType | None) -> list[str]:
    """The functions of torch.distributed in which a traceback ends, outermost first; none if it ends elsewhere."""
    frames = [frame for frame in traceback.extract_tb(trace) if "c10d_logger" not in frame.filename]
    inner = []
    for frame in reversed(frames):
        if "/torch/distributed/" not in frame.filename:
            break
        inner.append(frame.name)
    return inner[::-1]


def _tell_consequence(waited_in: str, error: Exception) -> None:
    time.sleep(COURTESY)
    first = _pinned()
    if first is not None:
        write_error_file(first)  # torchrun shows the first it finds, which shall be the true one
        reason = first["message"]["message"].splitlines()[0]
    else:
        reason = f"another rank is gone ({waited_in}: {' '.join(str(error).split())[:200]})"
    line = f"[rank {distributed.rank()}] ends because {reason}"
    if logger.handlers:  # else it would go to stderr, where it goes anyway
        logger.error(line)
    print(f"loam: {line}", file=sys.stderr, flush=True)


def report_of(line: str, **more: str) -> dict[str, Any]:
    """What torchrun's error files hold."""
    return {"message": {"message": line, "extraInfo": {"timestamp": str(int(time.time())), **more}}}


def write_error_file(report: dict[str, Any]) -> None:
    """For torchrun, which shows it in its own closing message; nothing without torchrun."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        Path(file).write_text(json.dumps(report))


def _pin(report: dict[str, Any]) -> None:
    try:
        board = distributed.board(PATIENCE)
        if board is not None:
            board.compare_set(KEY, "", json.dumps(report))
    except RuntimeError as error:  # its host may be the one that is gone
        logger.warning("the job's store cannot be told: %s", error)


def _pinned() -> dict[str, Any] | None:
    try:
        board = distributed.board(PATIENCE)
        return json.loads(board.get(KEY)) if board is not None and board.check([KEY]) else None
    except RuntimeError as error:
        logger.warning("the job's store cannot be asked: %s", error)
        return None
