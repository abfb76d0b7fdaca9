"""Pieces of HTML for notebooks and reports: escaped, no scripts, in the colours around them."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

STYLE = """\
.climlstm table{border-collapse:collapse;font-size:.9em;margin:.4em 0 1em}
.climlstm th,.climlstm td{padding:.25em .9em .25em 0;text-align:left;vertical-align:top;\
border-bottom:1px solid rgba(128,128,128,.25)}
.climlstm thead th{border-bottom:1px solid rgba(128,128,128,.6);font-weight:600}
.climlstm tbody th{font-weight:600;white-space:nowrap}
.climlstm .number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.climlstm .quiet{opacity:.65}
.climlstm caption{text-align:left;font-weight:600;padding:.2em 0}
.climlstm .passed,.climlstm .failed,.climlstm .error,.climlstm .warning,.climlstm .note{\
display:inline-block;padding:0 .6em;border-radius:.8em;font-size:.9em;font-weight:600;color:#fff}
.climlstm .passed{background:#2a7d57}.climlstm .failed,.climlstm .error{background:#b3313f}
.climlstm .warning{background:#8f6410}.climlstm .note{background:#4a6a86}
.climlstm .name{font-size:1.1em;font-weight:600}
"""
"""CSS of the pieces below. Text has the colour of the page, light or dark."""


class Markup(str):
    """Text that is HTML already; any other text is escaped where it is put into a piece."""


def fragment(*pieces: str) -> str:
    """HTML for a cell of a notebook: the pieces with the style that they need."""
    return f'<style>{STYLE}</style><div class="climlstm">{"".join(pieces)}</div>'


def text(value: Any) -> str:
    """A value as HTML; `Markup` as it is."""
    return value if isinstance(value, Markup) else escape(str(value))


def badge(word: str, kind: str) -> Markup:
    """A coloured word. kind: passed, failed, error, warning or note."""
    return Markup(f'<span class="{kind}">{text(word)}</span>')


def quiet(value: Any) -> Markup:
    """Text with less contrast."""
    return Markup(f'<span class="quiet">{text(value)}</span>')


def table(
    heading: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    caption: Any = "",
    numbers_from: int | None = None,
) -> Markup:
    """Rows of cells; the first cell of each names it.

    numbers_from: the column from which cells are numbers, and stand to the right.
    """
    first_number = len(heading) if numbers_from is None else numbers_from

    def cell(tag: str, column: int, value: Any) -> str:
        kind = ' class="number"' if column >= first_number else ""
        return f"<{tag}{kind}>{text(value)}</{tag}>"

    head = "".join(cell("th", column, value) for column, value in enumerate(heading))
    body = "".join(
        "<tr>"
        + "".join(cell("td" if column else "th", column, value) for column, value in enumerate(row))
        + "</tr>"
        for row in rows
    )
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    return Markup(f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def facts(pairs: Iterable[tuple[Any, Any]]) -> Markup:
    """A table of facts: names on the left, values on the right."""
    rows = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in pairs)
    return Markup(f"<table><tbody>{rows}</tbody></table>")


def details(summary: Any, *pieces: str, opened: bool = False) -> Markup:
    """A section that unfolds on a click. opened: whether it is unfolded from the start."""
    tag = "details open" if opened else "details"
    return Markup(f"<{tag}><summary>{text(summary)}</summary>{''.join(pieces)}</details>")
