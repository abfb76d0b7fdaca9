"""Output of commands: tables, findings, progress."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from climlstm.advice import command

console = Console(markup=False, highlight=False, soft_wrap=not sys.stdout.isatty())
"""Standard output. Text is printed as it is, brackets too: '[grib]' is no style of rich. Lines end
between words on a terminal, and only where they end elsewhere."""
complaints = Console(stderr=True, markup=False, highlight=False, soft_wrap=not sys.stderr.isatty())
"""Standard error."""


def print_command(*words: str) -> None:
    """A command on a line of its own, as a shell takes it."""
    console.print(f"  {command(*words)}", soft_wrap=True)


def print_audit(found: Any) -> None:
    """Each finding with its place, value and remedy; errors first."""
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    for severity, colour in colours.items():
        for finding in found.findings:
            if finding.severity == severity:
                console.print(Text.assemble((severity, f"bold {colour}"), f" {finding}"))
    verdict = "passed" if found.passed else "failed"
    errors, findings = len(found.errors), len(found.findings)
    console.print(
        f"{verdict}: {errors} error{'s' * (errors != 1)}, {findings} finding"
        f"{'s' * (findings != 1)}; {found.steps_read} steps read "
        f"({found.bytes_read / 2**20:.1f} MiB decoded), data {(found.digest or 'unknown')[:12]}"
    )


def print_scores(scores: Any) -> None:
    """Each metric as a table: a row for each variable and lead, a column for each model."""
    from climlstm.evaluation.tables import DEFINITIONS, score_table

    for metric in dict.fromkeys(scores["metric"]):
        console.print(DEFINITIONS.get(metric, ""), style="dim")
        for region in dict.fromkeys(scores[scores["metric"] == metric]["region"]):
            heading, rows = score_table(scores, metric, region=region)
            print_table(heading, rows, title=f"{metric}, {region}")


def print_table(
    heading: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    numbers_from: int = 2,
) -> None:
    """Print rows of texts, plain or styled, in columns.

    numbers_from: the first column that is aligned to the right.
    """
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, text in enumerate(heading):
        table.add_column(text, justify="left" if number < numbers_from else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table, soft_wrap=False)


@contextmanager
def progress_bar(what: str) -> Iterator[Any]:
    """Yields a function of (done, all) that shows a bar on a terminal, and lines elsewhere."""
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    columns: list[Any] = [
        *Progress.get_default_columns()[:-1],
        *("elapsed", TimeElapsedColumn(), "left", TimeRemainingColumn()),
    ]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        said = -1

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (tenth := 10 * done // max(total, 1)) > said:
                said = tenth
                console.print(f"{what}: {done} of {total} pieces")

        yield show
