"""Agreement of the workers between steps: whether to save or stop, and which one is slow."""

import socket
import time
from dataclasses import dataclass

from climlstm.training.parallel import Workers

SECONDS_BETWEEN_MEETINGS = 1.0
"""Short enough to save before a host goes that has half a minute left."""
SHARE_OF_TIME = 0.01
"""Largest share of the time that meetings may take; over slow links they are rarer."""
MOST_SECONDS_BETWEEN_MEETINGS = 10.0

SLOW = 1.5
"""Multiple of the median time for a step from which a worker is remarked on."""
JUDGED_OVER_S = 10.0
SECONDS_BETWEEN_REMARKS = 60.0


@dataclass(frozen=True)
class Decision:
    """The outcome of a meeting, the same on every worker."""

    leave: str | None
    """Why the training is to end now with a checkpoint, if it is."""
    save: bool
    remark: str | None
    """News for the log, such as a slow worker."""
    failure: str | None
    """Why the training cannot go on at all, if so."""


class Agreement:
    """Meetings of the workers, as one of them takes part."""

    def __init__(self, workers: Workers, step: int) -> None:
        """step: steps that are done."""
        self._workers = workers
        self._hosts = workers.exchange(socket.gethostname())
        self._met, self._met_at, self._took = step, time.monotonic(), 0.0
        self._next = step + 1
        self._busy = [0.0] * workers.world
        self._judged_at = self._met_at
        self._remarked_at = float("-inf")

    def is_due(self, step: int) -> bool:
        """Whether the workers meet after `step` steps."""
        return step >= self._next

    def meet(
        self, step: int, *, leave: str | None, save: bool, busy_s: float, failure: str | None
    ) -> Decision:
        """Agree with the other workers; each calls this after the same step.

        leave: why this worker wants the training to end, if it does; one suffices.
        save: whether a checkpoint is due; the first worker's word counts.
        busy_s: seconds since the last meeting in which this worker waited for no other.
        failure: why the training cannot go on, as far as this worker knows.
        """
        began = time.monotonic()
        pause = self._steps_to_next(step, began)
        answers = self._workers.exchange((leave, save, busy_s, pause, failure))
        self._met, self._met_at = step, time.monotonic()
        self._took = self._met_at - began
        self._next = step + answers[0][3]
        self._busy = [sum(pair) for pair in zip(self._busy, (a[2] for a in answers), strict=True)]
        return Decision(
            leave=next((a[0] for a in answers if a[0]), None),
            save=answers[0][1],
            remark=self._remark(),
            failure=next((a[4] for a in answers if a[4]), None),
        )

    def _steps_to_next(self, step: int, now: float) -> int:
        seconds_per_step = (now - self._met_at) / max(step - self._met, 1)
        pause = min(
            max(SECONDS_BETWEEN_MEETINGS, self._took / SHARE_OF_TIME), MOST_SECONDS_BETWEEN_MEETINGS
        )
        return max(1, int(pause / max(seconds_per_step, 1e-3)))

    def _remark(self) -> str | None:
        """A remark on the slowest worker, if it holds up the others."""
        passed = self._met_at - self._judged_at
        if self._workers.world == 1 or passed < JUDGED_OVER_S:
            return None
        busy, self._busy = self._busy, [0.0] * self._workers.world
        self._judged_at = self._met_at
        slowest = max(range(len(busy)), key=lambda rank: busy[rank])
        median = sorted(busy)[(len(busy) - 1) // 2]
        if busy[slowest] <= SLOW * median or busy[slowest] < 0.1 * passed:
            return None
        if self._met_at - self._remarked_at < SECONDS_BETWEEN_REMARKS:
            return None
        self._remarked_at = self._met_at
        times = busy[slowest] / max(median, 1e-9)
        return (
            f"worker {slowest} on host {self._hosts[slowest]} is slow: it takes {times:.1f} times "
            "as long as the median worker for data and forward pass, and all wait for it"
        )
