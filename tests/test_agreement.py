"""What workers agree on between steps, with the words of the others made up."""

from dataclasses import dataclass, field

import pytest
import torch

from climlstm.training import agreement
from climlstm.training.agreement import Agreement
from climlstm.training.parallel import Workers


@dataclass(frozen=True)
class Among(Workers):
    """The first of some workers; `others` is what the others bring to the next meeting."""

    others: list = field(default_factory=list)

    def exchange(self, value):
        if isinstance(value, str):
            return [f"host{rank}" for rank in range(self.world)]
        return [value, *self.others]


@pytest.fixture
def three():
    workers = Among(rank=0, world=3, device=torch.device("cpu"))
    return Agreement(workers, 0), workers.others


def bring(leave=None, save=False, busy_s=1.0, pause=99, failure=None):
    return leave, save, busy_s, pause, failure


def meet(three, *others, step=1, **own):
    meeting, brought = three
    brought[:] = others
    values = {"leave": None, "save": False, "busy_s": 1.0, "failure": None, **own}
    return meeting.meet(step, **values)


def test_one_suffices_to_leave_or_fail_and_the_first_says_when_to_save(three):
    decision = meet(three, bring(save=True), bring())
    assert (decision.leave, decision.save, decision.failure) == (None, False, None)
    decision = meet(three, bring(), bring(leave="a host is to go"), save=True)
    assert (decision.leave, decision.save) == ("a host is to go", True)
    assert meet(three, bring(), bring(failure="it has diverged")).failure == "it has diverged"


def test_all_meet_again_when_the_first_says(three):
    meeting, _ = three
    assert meeting.is_due(1)
    meet(three, bring(pause=1), bring(pause=1))
    assert not meeting.is_due(2)  # a second is far more than a step here


@pytest.mark.parametrize(
    ("busy", "remark"),
    [
        ((4.0, 4.0, 6.1), "worker 2 on host host2 is slow: it takes 1.5 times as long as"),
        ((9.0, 4.0, 4.0), "worker 0 on host host0 is slow: it takes 2.2 times as long as"),
        ((4.0, 5.0, 5.9), None),
        ((0.1, 0.1, 0.9), None),  # most of the time is other work
    ],
)
def test_a_slow_worker_is_named_with_its_host(three, monkeypatch, busy, remark):
    monkeypatch.setattr(agreement, "JUDGED_OVER_S", 0.0)
    clock = iter(range(100, 10**6, 10))
    monkeypatch.setattr(agreement.time, "monotonic", lambda: next(clock))
    meeting, _ = three
    meeting._judged_at = 90
    own, *others = busy
    found = meet(three, *(bring(busy_s=b) for b in others), busy_s=own).remark
    assert found is None if remark is None else found.startswith(remark)
