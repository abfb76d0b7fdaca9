"""Stop requests, carried from the driver to its Ray workers.

Signals reach the driver, but the workers train elsewhere and have the last state. An actor beside
the driver holds the request; a thread in each worker asks it once a second.
"""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from climlstm.errors import Stopped
from climlstm.training.stopping import stop_on_signals

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_BE_RECEIVED = 5.0
"""Timeout after which no worker trains, not yet or no longer: there is nothing to wait for."""
SECONDS_TO_STOP = 120.0
"""Timeout for the current steps and a checkpoint; after it the last checkpoint has to do."""

logger = logging.getLogger(__name__)


class StopRequest:
    """Whether the run shall stop, and whether a worker knows it."""

    def __init__(self) -> None:
        self.made = self.received = False

    def make(self) -> None:
        self.made = True

    def ask(self) -> bool:
        self.received = self.received or self.made
        return self.made

    def was_received(self) -> bool:
        return self.received


@contextmanager
def pending() -> Iterator[str]:
    """Hold a stop request, not yet made; yields the name by which workers find it."""
    name = f"climlstm-stop-{uuid.uuid4().hex}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote: Any = ray.remote(StopRequest)
    actor = remote.options(name=name, num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield name
    finally:
        ray.kill(actor)


def run_until_stopped(work: Callable[[], T], request: str) -> T:
    """Do work in a thread, so that this one hears signals; returns or raises what it does.

    request: name of the stop request that a signal makes.
    Raises Stopped where the work did not end in time after a signal, KeyboardInterrupt at a second
    signal.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # raised again in the thread that waits
            result.set_exception(error)

    thread = threading.Thread(target=run, name="climlstm-ray", daemon=True)
    asked = threading.Event()
    with stop_on_signals(asked):
        thread.start()
        while thread.is_alive() and not asked.is_set():
            thread.join(0.2)
        if thread.is_alive():
            actor = ray.get_actor(request)
            ray.get(actor.make.remote())
            thread.join(SECONDS_TO_BE_RECEIVED)
            if thread.is_alive() and ray.get(actor.was_received.remote()):
                thread.join(SECONDS_TO_STOP)
    if thread.is_alive():
        raise Stopped("Stopped before the workers could save anything new; what was saved stands.")
    return result.result()


@contextmanager
def received(name: str) -> Iterator[threading.Event]:
    """In a worker that trains: an event that is set when the driver makes the stop request."""
    stop, over = threading.Event(), threading.Event()
    watch = threading.Thread(
        target=_watch, args=(ray.get_actor(name), stop, over), name="climlstm-stop", daemon=True
    )
    watch.start()
    try:
        yield stop
    finally:
        over.set()


def _watch(actor: Any, stop: threading.Event, over: threading.Event) -> None:
    while not over.wait(SECONDS_BETWEEN_LOOKS) and not stop.is_set():
        try:
            if ray.get(actor.ask.remote(), timeout=30):
                stop.set()
        except ray.exceptions.GetTimeoutError:
            logger.info("the driver does not answer; asking again")
        except ray.exceptions.RayError as error:  # the driver is gone, and with it the request
            logger.info("nobody can ask this worker to stop any more: %s", error)
            return
