"""Ending early: SIGTERM and SIGINT become a stop request, which the loop obeys between steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """A context in which the first signal sets the event, and the second one interrupts.

    Signals reach the main thread only, so elsewhere (Ray's workers) nothing is changed.
    Raises KeyboardInterrupt at the second signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def asked(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, asked) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
