"""Records of a running training: kept as JSON lines, and shown to people."""

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from climlstm.files import write_text

logger = logging.getLogger(__name__)

Record = dict[str, Any]
"""One event of a run; its key `event` is start, train, valid, note or end."""

Observe = Callable[[Record], None]

JOURNAL = "metrics.jsonl"
"""File in a run's folder with one record a line."""


def describe(record: Record) -> str:
    """A record in one line that reads well in a log file."""
    return _PHRASES[record["event"]](record)


def _start(r: Record) -> str:
    resumed = f", resumed at step {r['step']}" if r["step"] else ""
    return (
        f"training {r['model']} with {r['parameters']:,} parameters on {r['windows']:,} windows: "
        f"{r['epochs']} epochs of {r['batches']} batches, {r['workers']} worker(s), "
        f"{r['device']}, {r['precision']}{resumed}"
    )


def _train(r: Record) -> str:
    return (
        f"epoch {r['epoch'] + 1}/{r['epochs']}  step {r['step']}/{r['steps']}  "
        f"loss {r['loss']:.4f}  horizon {r['horizon']}  {r['samples_per_s']:.0f} samples/s  "
        f"waiting for data {r['data_wait']:.0%}"
    )


def _valid(r: Record) -> str:
    skill = ", ".join(f"{lead} {value:+.0%}" for lead, value in r["skill_persistence"].items())
    against = ", ".join(f"{lead} {value:+.0%}" for lead, value in r["skill_climatology"].items())
    best = "  (best so far)" if r["best"] else ""
    return (
        f"validation at step {r['step']}: loss {r['valid_loss']:.4f}{best}; "
        f"RMSE skill against persistence {skill}; against climatology {against}"
    )


_PHRASES: dict[str, Callable[[Record], str]] = {
    "start": _start,
    "train": _train,
    "valid": _valid,
    "note": lambda r: str(r["text"]),
    "end": lambda r: (
        f"{r['reason']} at step {r['step']} after {r['seconds']:.0f} s; "
        f"best validation loss {r['best_loss']:.4f}"
    ),
}


class Journal:
    """The records of a run on disk, one JSON object a line, each line written at once."""

    def __init__(self, path: Path, *, until_step: int) -> None:
        """Records after `until_step`, left by a run that was cut off, are dropped."""
        self.path = path
        kept = [r for r in read_journal(path) if r.get("step", 0) <= until_step]
        write_text(path, "".join(json.dumps(r) + "\n" for r in kept))
        self._waiting = ""

    def __call__(self, record: Record) -> None:
        """Add a record; where the disk refuses it now, it is written with a later one.

        record: with its `time`, in seconds since 1970.
        """
        self._waiting += json.dumps(record) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._waiting)
        except OSError as error:
            logger.warning("%s cannot be written now: %s", self.path, error)
        else:
            self._waiting = ""


def read_journal(path: Path) -> list[Record]:
    """All records; lines cut short, by a kill or a full disk, are left out."""
    return parse_journal(path.read_text("utf-8", "replace")) if path.exists() else []


def parse_journal(text: str) -> list[Record]:
    """The records in the text of a journal."""
    return [record for line in text.splitlines() if (record := _parse(line))]


def _parse(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None


SECONDS_BETWEEN_LINES = 15.0
"""Time between two lines of training in a log file."""


class _Labelled(ProgressColumn):
    """A time with the word that says which one it is: 'elapsed 0:01:02', 'left 0:10:00'."""

    def __init__(self, word: str, column: ProgressColumn) -> None:
        self.word, self.column = word, column
        super().__init__()

    def render(self, task: Task) -> Text:
        """The word, and the time as the other column shows it."""
        return Text.assemble(f"{self.word} ", str(self.column.render(task)))


class Display:
    """Shows records: a live bar on a terminal and in notebooks, plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console = console or Console()
        self.is_live = console.is_terminal or console.is_jupyter
        self._next_line = 0.0
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[state]}"),
            _Labelled("elapsed", TimeElapsedColumn()),
            _Labelled("left", TimeRemainingColumn()),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None, state="")

    def __enter__(self) -> "Display":
        if self.is_live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, record: Record) -> None:
        if record["event"] == "train" and self.is_live:
            self._move(record)
        elif record["event"] != "train" or time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            # people read lines that end at words, programs those that end where the record does
            self.console.print(
                describe(record), markup=False, highlight=False, soft_wrap=not self.is_live
            )

    def _move(self, record: Record) -> None:
        """Show as much as fits on the line: the step, the loss, then how fast it goes."""
        parts = [f"step {record['step']}/{record['steps']}", f"loss {record['loss']:.4f}",
                 f"{record['samples_per_s']:.0f} samples/s",
                 f"data wait {record['data_wait']:.0%}"]  # fmt: skip
        room = self.console.width - _BESIDE_STATE
        while len(parts) > 1 and len(" · ".join(parts)) > room:
            parts.pop()
        self._bar.update(
            self._task, description="training", total=record["steps"], completed=record["step"],
            state=" · ".join(parts),
        )  # fmt: skip


_BESIDE_STATE = 56
"""Columns of a terminal that the word, the bar and the two times take."""


@contextmanager
def following(
    read: Callable[[], list[Record]], observe: Observe, *, interval_s: float = 0.5
) -> Iterator[None]:
    """Pass on records that other processes add to a journal, as long as the block runs.

    read: gives the whole journal.
    """
    known: Counter[str] = Counter()
    with suppress(Exception):  # a store that cannot be read now is, later
        known.update(map(json.dumps, read()))
    stop = threading.Event()
    thread = threading.Thread(
        target=_follow, args=(read, observe, known, stop, interval_s), daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _follow(
    read: Callable[[], list[Record]],
    observe: Observe,
    known: Counter[str],
    stop: threading.Event,
    interval_s: float,
) -> None:
    """Pass on each record that was not there before; a restarted worker rewrites the journal.

    known: records that are not passed on.
    """
    ended = False
    while not ended:
        ended = stop.wait(interval_s)  # one more look after the end
        try:
            records = read()
        except Exception as error:  # of whatever kind the storage has; training may well go on
            logger.info("the records cannot be read now: %s", error)
            continue
        left = known.copy()
        for record in records:
            line = json.dumps(record)
            if left[line] > 0:
                left[line] -= 1
            else:
                known[line] += 1
                observe(record)
