"""What commands print: tables, findings, progress."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console()
complaints = Console(stderr=True)


def print_audit(found: Any) -> None:
    """Each finding with its place, value and remedy; errors first."""
    colours = {"error": "red", "warning": "yellow", "note": "cyan"}
    for severity, colour in colours.items():
        for finding in found.findings:
            if finding.severity == severity:
                console.print(
                    f"[bold {colour}]{severity}[/] {escape(str(finding))}",
                    highlight=False,
                    soft_wrap=True,
                )
    verdict = "passed" if found.passed else "failed"
    errors, findings = len(found.errors), len(found.findings)
    console.print(
        f"{verdict}: {errors} error{'s' * (errors != 1)}, {findings} finding"
        f"{'s' * (findings != 1)}; {found.steps_read} steps read "
        f"({found.bytes_read / 2**20:.1f} MiB decoded), data {(found.digest or 'unknown')[:12]}",
        soft_wrap=True,
    )


def print_scores(scores: Any) -> None:
    """Each metric as a table: a row for each variable and lead, a column for each model."""
    from climlstm.evaluation.tables import DEFINITIONS, score_table

    for metric in dict.fromkeys(scores["metric"]):
        console.print(DEFINITIONS.get(metric, ""), style="dim", highlight=False)
        for region in dict.fromkeys(scores[scores["metric"] == metric]["region"]):
            heading, rows = score_table(scores, metric, region=region)
            print_table(heading, rows, title=f"{metric}, {region}")


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> None:
    """Texts in columns, numbers to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for number, text in enumerate(heading):
        table.add_column(text, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


@contextmanager
def progress_bar(what: str) -> Iterator[Any]:
    """A bar on a terminal, lines elsewhere, for whatever reports (done, all)."""
    from rich.progress import Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:-1], TimeElapsedColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        said = -1

        def show(done: int, total: int) -> None:
            nonlocal said
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and (tenth := 10 * done // max(total, 1)) > said:
                said = tenth
                console.print(f"{what}: {done} of {total} pieces", highlight=False)

        yield show
