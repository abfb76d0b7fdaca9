"""What climlstm promises of every evaluator, promised of this one."""

import pytest
from climlstm_storms.evaluator import Storms

from climlstm.testing import EvaluatorTests


class TestStorms(EvaluatorTests):
    evaluator = Storms()


@pytest.mark.slow
class TestGuided(EvaluatorTests):
    evaluator = Storms(mode="guided", preset="extratropical")
