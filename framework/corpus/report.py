"""What preparation tells the user: lines, progress bars on a terminal, and a table at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from framework.corpus.manifest import Manifest

_WIDTH = 120  # of the output where it is no terminal


class Reporter:
    """Speaks to stderr; the table goes to stdout."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """Print one line."""
        self._console.print(line, markup=False, soft_wrap=True)

    @contextmanager
    def track(self, label: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """Follow a loop over documents: calls of the function that is yielded are counted and shown.

        Args:
            label: what is being done.
            total: how many documents there will be, where that is known.
        """
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        disable = not self._console.is_terminal  # a log file gets lines only
        with Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True, disable=disable
        ) as progress:
            task = progress.add_task(label, total=total)
            yield lambda: progress.advance(task)

    def show(self, manifest: Manifest) -> None:
        """Print what was read, dropped and kept, by corpus."""
        terminal = Console(highlight=False)
        console = terminal if terminal.is_terminal else Console(highlight=False, width=_WIDTH)
        table = Table("corpus", "documents in", "kept", "dropped by rule", "bytes")
        for heading in ("tokens: train", "validation", "tokens/byte"):
            table.add_column(heading)
        for column in (1, 2, 4, 5, 6, 7):
            table.columns[column].justify = "right"
        for name, corpus in manifest.corpora.items():
            size = corpus.train.bytes + corpus.validation.bytes
            tokens = corpus.train.tokens + corpus.validation.tokens
            table.add_row(
                name,
                f"{corpus.documents_in:,}",
                f"{corpus.documents_kept:,}",
                ", ".join(f"{rule} {count:,}" for rule, count in corpus.dropped.items()) or "none",
                f"{size:,}",
                f"{corpus.train.tokens:,}",
                f"{corpus.validation.tokens:,}",
                f"{tokens / size:.3f}",
            )
        console.print(table)
