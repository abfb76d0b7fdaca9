"""How the process of a command ends: well, with an error that a user can mend, or by a signal."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.text import Text

from climlstm.cli.commands import app
from climlstm.cli.printing import complaints
from climlstm.errors import ClimLSTMError, Stopped

SECONDS_TO_UNWIND = 8.0
"""Time for threads to end that read or write when a command is interrupted."""


def main() -> None:
    """Entry point of the command `climlstm`: errors a user can mend are shown without traceback."""
    # Idle OpenMP threads that spin slow each other down tenfold where other processes want the
    # cores too; this is read when torch is imported, here and in Ray's local workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with _interrupted_by_signals() as caught:
        try:
            app()
        except Stopped as stopped:
            _end(caught, str(stopped))
        except ClimLSTMError as error:
            _complain(str(error))
        except BrokenPipeError:  # whoever reads the output has seen enough: '| head'
            os._exit(128 + signal.SIGPIPE)
        except OSError as error:
            if error.errno is None:
                raise
            place = f" ({error.filename})" if error.filename else ""
            _complain(f"{error.strerror}{place}. What was finished before is kept.")
        except SystemExit:  # typer's, also after a KeyboardInterrupt
            if caught:
                _end(caught, "What was finished is kept; the same command goes on or starts anew.")
            raise


@contextmanager
def _interrupted_by_signals() -> Iterator[list[int]]:
    """Yields the signals that came: SIGTERM and SIGINT interrupt, and end a command that hangs.

    Training has handlers of its own, to save its state first.
    """
    caught: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        caught.append(number)
        watch = threading.Timer(SECONDS_TO_UNWIND, os._exit, [128 + number])
        watch.daemon = True
        watch.start()
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(caught: Sequence[int], message: str) -> NoReturn:
    """End with the status of a process ended by a signal, so that no script goes on after it.

    Threads are not waited for. A training that has saved its state gives 143 for either signal.
    """
    complaints.print(message)
    sys.stdout.flush()
    os._exit(128 + (caught[0] if caught else signal.SIGTERM))


def _complain(message: str) -> None:
    from climlstm.config.secrets import redact

    complaints.print(Text.assemble(("Error:", "bold red"), f" {redact(message)}"))
    sys.exit(1)
