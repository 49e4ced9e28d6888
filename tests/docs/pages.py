"""The pages, and what stands in them: fenced blocks, commands, links, names in the text.

A comment above a fenced block says what the tests cannot see:

    <!-- not run: needs a GPU -->                   why its commands cannot be run here
    <!-- file: my/corpus/fields.yaml -->            the block is this file
    <!-- until: http://127.0.0.1:8000/health -->    it goes on running; the next block follows once this answers
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.launch import ROOT

PAGES = [
    *("README.md", "CONTRIBUTING.md", "samples/README.md", "kernels/README.md", "launch/README.md", "docker/README.md"),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]
PAGES = [page for page in PAGES if (ROOT / page).exists()]
SHELL = ("bash", "console")
LANGUAGES = {*SHELL, "python", "diff", "yaml", "json", "text", ""}
_FENCE = re.compile(r"( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"^ *<!-- ([a-z ]+): (.+) -->\s*\Z", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page, line: where it begins.
        language: after the fence.
        text: what is in it.
        notes: what the comment above it says, by `not run`, `file` or `until`.
    """

    page: str
    line: int
    language: str
    text: str
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in (*SHELL, "python") and "file" not in self.notes and "not run" not in self.notes

    def commands(self) -> list[str]:
        """Each line of a shell block, those that a backslash or an open quote continues put together."""
        found, open_line = [], ""
        shell = transcript(self.text) if self.language == "console" else [(self.text, [])]
        for line in "\n".join(command for command, _ in shell).splitlines():
            open_line = f"{open_line}{line}" if not open_line or open_line.endswith("\\\n") else f"{open_line}\n{line}"
            if line.endswith("\\") or not _is_closed(open_line):
                open_line += "\n" if line.endswith("\\") else ""
                continue
            found.append(open_line.replace("\\\n", " "))
            open_line = ""
        assert not open_line, f"{self.name}: a quote is open"
        return found


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True


def transcript(text: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        else:
            found[-1][1].append(line)
    return found


def words(command: str) -> Iterator[list[str]]:
    """The simple commands of a line: what stands between `;`, `&`, `|` and the like."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[str] = []
    for word in lexer:
        if set(word) <= set("();<>|&"):
            yield found
            found = []
        else:
            found.append(word)
    yield found


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text, found = text_of(page), []
    for match in _FENCE.finditer(text):
        comment = _COMMENT.search(text[: match.start()].rstrip() + "\n")
        indent = len(match[1])
        body = "".join(line[indent:] if line.strip() else "\n" for line in match[3].splitlines(keepends=True))
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[2], body, {comment[1]: comment[2]} if comment else {}))
    return found


def prose(page: str) -> str:
    """A page without its fenced blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _FENCE.sub("", text_of(page)), flags=re.DOTALL)


def inline_code(page: str) -> list[str]:
    """What stands between backticks in the text."""
    return re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))


def links(page: str) -> list[str]:
    """The targets of links and images that lead to this repository."""
    found = re.findall(r"""(?:\]\(|(?:src|href)=")([^)"\s]+)""", re.sub(r"`[^`]*`", "", prose(page)))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(page: str) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def apply_diff(diff: str, root: Path) -> None:
    """Change the files that a diff names: each hunk's old lines, which must be there once, for its new ones.

    Hunks begin with `@@`; line numbers are not needed.
    """
    for part in re.split(r"^--- a/", diff, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        path = root / name.strip()
        text = path.read_text(encoding="utf-8")
        for hunk in re.split(r"^@@.*\n", body, flags=re.MULTILINE)[1:]:
            lines = [line or " " for line in hunk.splitlines()]
            old = "".join(line[1:] + "\n" for line in lines if line[0] in " -")
            new = "".join(line[1:] + "\n" for line in lines if line[0] in " +")
            assert text.count(old) == 1, f"{name}: what the diff changes is there {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
