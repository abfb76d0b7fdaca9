"""What an audit finds: a fault with its place, its value and its remedy."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that makes a run wrong (error), worse or slower (warning), or is good to know."""

    rule: str
    """Its name, the same in every version: 'periods-overlap'."""
    severity: Severity
    what: str
    where: str
    """Key of the run file, channel, period or variable of the source."""
    value: str
    """What was found, with its unit."""
    fix: str

    def __str__(self) -> str:
        return f"{self.what} ({self.where}: {self.value}). {self.fix} [{self.rule}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def errors_of(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those for which a run must not start, or a score must not be believed."""
    return tuple(finding for finding in findings if finding.severity == "error")
