"""What a check finds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum


class Level(StrEnum):
    """How a finding bears on a run, the gravest first."""

    BREAKS = "would break a run"
    DOUBT = "look at this"
    SOUND = "sound"


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Attributes:
        subject: what was looked at.
        fact: what was found, with its unit.
        level: how it bears on a run.
        remedy: what to do about it; empty where it is sound.
        where: the ranks or hosts it was found on; empty: the whole job.
    """

    subject: str
    fact: str
    level: Level = Level.SOUND
    remedy: str = ""
    where: str = ""

    @property
    def breaks(self) -> bool:
        """Whether a run would break on it."""
        return self.level == Level.BREAKS


def doubt(subject: str, fact: str, remedy: str) -> Finding:
    """Something that makes a run slow, or may break it."""
    return Finding(subject, fact, Level.DOUBT, remedy)


def breaks(subject: str, fact: str, remedy: str) -> Finding:
    """Something that would break a run."""
    return Finding(subject, fact, Level.BREAKS, remedy)


def joined(found: Sequence[tuple[str, Sequence[Finding]]]) -> list[Finding]:
    """The findings of several places: what several have found alike is one line that names them all."""
    places: dict[Finding, list[str]] = {}
    for place, findings in found:
        for finding in findings:
            places.setdefault(finding, []).append(place)
    everywhere = len(found)
    lines = []
    for finding, named in places.items():
        alike = len(named) == everywhere > 1
        lines.append(replace(finding, where=finding.where or (f"all {everywhere}" if alike else ", ".join(named))))
    return lines
