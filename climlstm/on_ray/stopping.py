"""A driver's wish to stop, carried to its Ray workers.

Signals reach the driver, but the workers train elsewhere and have the last state. An actor beside
the driver holds the wish; while a worker trains, a thread of it looks there once a second.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from climlstm.errors import Stopped
from climlstm.training.stopping import stop_on_signals

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_BE_HEARD = 5.0
"""After which nobody trains yet, or no longer: there is nothing to wait for."""
SECONDS_TO_STOP = 120.0
"""For the steps that run and a checkpoint; after them the last one has to do."""

logger = logging.getLogger(__name__)


class Wish:
    """Whether the run shall stop, and whether a worker has heard of it."""

    def __init__(self) -> None:
        self.made = self.heard = False

    def make(self) -> None:
        self.made = True

    def look(self) -> bool:
        self.heard = self.heard or self.made
        return self.made

    def was_heard(self) -> bool:
        return self.heard


@contextmanager
def held_wish() -> Iterator[str]:
    """The name by which workers find the wish of this driver."""
    name = f"climlstm-stop-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote: Any = ray.remote(Wish)
    actor = remote.options(name=name, num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield name
    finally:
        ray.kill(actor)


def run_until_stopped(work: Callable[[], T], wish: str) -> T:
    """What `work` returns or raises; it runs in a thread, so that this one hears signals.

    Raises Stopped where it did not end in time after a signal, KeyboardInterrupt at a second one.
    """
    ended: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            ended.append(work())
        except BaseException as error:  # raised again in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=run, name="climlstm-ray", daemon=True)
    asked = threading.Event()
    with stop_on_signals(asked):
        thread.start()
        while thread.is_alive() and not asked.is_set():
            thread.join(0.2)
        if thread.is_alive():
            _wait_for_end(thread, wish)
    if failed:
        raise failed[0]
    return ended[0]


def _wait_for_end(thread: threading.Thread, wish: str) -> None:
    actor = ray.get_actor(wish)
    ray.get(actor.make.remote())
    thread.join(SECONDS_TO_BE_HEARD)
    if thread.is_alive() and ray.get(actor.was_heard.remote()):
        thread.join(SECONDS_TO_STOP)
    if thread.is_alive():
        raise Stopped("Stopped before the workers could save anything new; what was saved stands.")


@contextmanager
def heard_wish(name: str | None) -> Iterator[threading.Event]:
    """In a worker that trains: an event that is set when the driver wishes to stop."""
    stop, over = threading.Event(), threading.Event()
    if name is None:
        yield stop
        return
    thread = threading.Thread(
        target=_look, args=(ray.get_actor(name), stop, over), name="climlstm-stop", daemon=True
    )
    thread.start()
    try:
        yield stop
    finally:
        over.set()


def _look(actor: Any, stop: threading.Event, over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_LOOKS) and not stop.is_set():
        try:
            if ray.get(actor.look.remote(), timeout=30):
                stop.set()
        except ray.exceptions.GetTimeoutError:
            logger.info("the driver does not answer; looking again")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        except ray.exceptions.RayError as error:  # the driver is gone, and with it whoever asks
            logger.info("nobody can ask this worker to stop any more: %s", error)
            return
