"""What preparation tells the user: lines, progress bars on a terminal, and a table at the end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from framework.corpus.fertility import Fertility
from framework.corpus.manifest import Manifest

_FERTILITY = ("tokens\n/ word", "bytes\n/ token")
_WIDTH = 100  # columns that the table has to itself, however narrow the terminal is


class Reporter:
    """Speaks to stderr; the table goes to stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def follow(self, label: str, total: int, done: Callable[[], int]) -> Iterator[None]:
        """Show how many of `total` tasks, which run elsewhere, are done; `done` is asked twice a second."""
        if not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=total)
            stop = threading.Event()

            def watch() -> None:
                while not stop.wait(0.5):
                    progress.update(task, completed=done())

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield
            finally:
                stop.set()
                watcher.join()

    def show(self, manifest: Manifest, fertility: dict[str, Fertility]) -> None:
        """Print what was read, dropped and kept, and how well the tokenizer fits, by corpus."""
        console = Console(highlight=False)
        console.width = max(console.width, _WIDTH)
        table = Table(box=SIMPLE_HEAD, padding=0)
        table.add_column("corpus", no_wrap=True)
        table.add_column("dropped\nby rule", no_wrap=True)
        for heading in ("docs\nin", "\nkept", "text\nbytes", "train\ntokens", "held-out\ntokens", *_FERTILITY):
            table.add_column(heading, justify="right", no_wrap=True)
        for name, corpus in manifest.corpora.items():
            size = corpus.train.bytes + corpus.validation.bytes
            table.add_row(
                name,
                "\n".join(f"{rule} {count:,}" for rule, count in corpus.dropped.items()) or "none",
                f"{corpus.documents_in:,}",
                f"{corpus.documents_kept:,}",
                f"{size:,}",
                f"{corpus.train.tokens:,}",
                f"{corpus.validation.tokens:,}",
                f"{fertility[name].tokens_per_word:.2f}",
                f"{fertility[name].bytes_per_token:.2f}",
            )
        console.print(table)
