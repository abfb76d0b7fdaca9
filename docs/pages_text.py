"""Docstrings and tables in Markdown, for docs/pages.py."""

import re
import textwrap


def prose(docstring: str) -> str:
    """A docstring as Markdown: examples as code, lines `name: meaning` as a list."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", docstring.strip()):
        lines = paragraph.splitlines()
        if lines and lines[0].lstrip().startswith(">>>"):
            parts.append("```pycon\n" + textwrap.dedent(paragraph) + "\n```")
        elif lines and re.match(r"[a-z_]+(, [a-z_]+)*: ", lines[0]):
            ends = next(
                (n for n, line in enumerate(lines) if re.match("(Rais|Return|Yield)", line)), None
            )
            lines, rest = lines[:ends], lines[ends:] if ends else []
            items = [re.sub(r"^([a-z_]+(?:, [a-z_]+)*): ", r"- **\1**: ", line) for line in lines]
            parts.append("\n".join(i if i.startswith("- ") else f"  {i.strip()}" for i in items))
            parts += ["\n".join(rest)] if rest else []
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""

    def line(cells: tuple[str, ...]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return "\n".join([line(heading), line(("---",) * len(heading)), *map(line, rows), ""])
