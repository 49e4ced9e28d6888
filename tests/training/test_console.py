"""What a person sees of a run, with a terminal and without."""

import os
import pty
import re
import subprocess
import sys

from framework.training.record.console import Console
from tests.launch import ENVIRONMENT

PROGRAM = """
import sys, time
from framework.training.record.console import Console
console = Console(steps=400, done=100, log_every=10)
for step in range(101, 105):
    time.sleep(0.11)
    console.step({"step": step, "train/loss": 3.25, "train/gradient_norm": 1.0, "train/learning_rate": 1e-3,
                  "train/tokens_per_second": 1234.0, "train/mfu": 0.5})
    if step == 102:
        console.say("rank 3 is slow [bold]as said[/bold]")
        print("a word from elsewhere", flush=True)
time.sleep(0.15)
END
"""


def record(step):
    return {
        "step": step,
        "train/loss": 3.25,
        "train/gradient_norm": 1.0,
        "train/learning_rate": 1e-3,
        "train/tokens_per_second": 1234.0,
        "train/mfu": 0.5,
    }


def under_a_terminal(program):
    """Everything that a program writes to a terminal of its own, and its exit code."""
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    return seen.decode(), process.wait()


def screen(written):
    """The lines that a terminal shows in the end, of what moves up, erases lines and returns to their start."""
    lines, row, column = [""], 0, 0
    written = re.sub(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]", "", written)  # colours; the cursor hidden or shown
    for piece in re.findall(r"\x1b\[\d*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if piece == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif piece == "\r":
            column = 0
        elif move := re.fullmatch(r"\x1b\[(\d*)A", piece):
            row -= int(move[1] or 1)
        elif piece == "\x1b[2K":
            lines[row] = ""
        else:
            assert not piece.startswith("\x1b"), piece
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in lines if line.strip()]


def test_a_live_line_has_the_time_left_and_other_words_stand_above_it():
    written, code = under_a_terminal(PROGRAM.replace("END", "console.close()"))
    assert code == 0
    above, elsewhere, live = screen(written)
    assert (above, elsewhere) == ("rank 3 is slow [bold]as said[/bold]", "a word from elsewhere")
    assert re.fullmatch(r"training .* 104/400 left 0:0\d:\d\d  loss 3\.250  1,234 tokens/s", live)
    assert "\x1b[?25h" in written[written.rindex("\x1b[?25l") :]  # the cursor is back


def test_an_error_leaves_the_terminal_with_its_cursor():
    written, code = under_a_terminal(PROGRAM.replace("END", "raise ValueError('broken')"))
    assert code == 1
    assert "ValueError: broken" in "\n".join(screen(written))
    assert "\x1b[?25h" in written[written.rindex("\x1b[?25l") :]


def test_without_a_terminal_there_are_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    now = [1000.0]
    monkeypatch.setattr("framework.training.record.console.time.monotonic", lambda: now[0])
    console = Console(steps=100, done=8, log_every=10)
    for step in range(9, 22):
        now[0] += 60.0
        line = console.step(record(step))
    console.say("said")
    console.close()
    plain = capsys.readouterr()
    assert [re.match(r"step +(\d+)/100 ", text)[1] for text in plain.out.splitlines()[:-1]] == ["10", "20"]
    assert "left 1:20:00" in plain.out.splitlines()[1]  # 80 steps of a minute
    assert plain.out.splitlines()[-1] == "said"
    assert "left 1:19:00" in line
    assert plain.err == ""
