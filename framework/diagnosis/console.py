"""The diagnosis as a person reads it, and as a program does."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from framework.diagnosis.finding import Finding, Level

STYLES = {Level.BREAKS: "bold red", Level.DOUBT: "yellow", Level.SOUND: "green"}


def show(findings: Sequence[Finding]) -> None:
    """A table, and below it what is to be done, the gravest first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("where", "what", "found", ""):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(finding.where, finding.subject, finding.fact, f"[{STYLES[finding.level]}]{finding.level}[/]")
    console.print(table)
    for level in (Level.BREAKS, Level.DOUBT):
        for finding in findings:
            if finding.level == level:
                where = f"{finding.where}: " if finding.where else ""
                line = f"{level}: {where}{finding.subject}: {finding.fact}; {finding.remedy}"
                console.print(line, style=STYLES[level], soft_wrap=True, markup=False)
    console.print(verdict(findings), markup=False)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line."""
    count = sum(finding.breaks for finding in findings)
    if count:
        return f"{count} finding{'s' if count > 1 else ''} would break a run"
    return "nothing found that would break a run"


def as_json(findings: Sequence[Finding]) -> str:
    """`sound`, and all findings."""
    facts = [{**asdict(one), "level": one.level.name.lower()} for one in findings]
    return json.dumps({"schema_version": 1, "sound": not any(f.breaks for f in findings), "findings": facts}, indent=1)
