"""Findings of an audit: a fault with its place, its value and its remedy."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from climlstm import html

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that makes a run wrong (error), worse or slower (warning), or is good to know."""

    rule: str
    """Name of the rule, the same in every version: 'periods-overlap'."""
    severity: Severity
    what: str
    where: str
    """Key of the run file, channel, period or variable of the source."""
    value: str
    """The value found, with its unit."""
    fix: str

    def __str__(self) -> str:
        return f"{self.what} ({self.where}: {self.value}). {self.fix} [{self.rule}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


def errors_of(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings for which a run must not start, or a score must not be believed."""
    return tuple(finding for finding in findings if finding.severity == "error")


def findings_table(findings: Iterable[Finding]) -> html.Markup:
    """A table of findings as HTML, errors first; empty without findings."""
    order = ("error", "warning", "note")
    rows = [
        (html.badge(f.severity, f.severity), f.what, f"{f.where}: {f.value}", f.fix)
        for f in sorted(findings, key=lambda f: order.index(f.severity))
    ]
    if not rows:
        return html.Markup("")
    return html.table(("", "what", "where", "what to do"), rows)
