"""Tests that every plugin must pass: subclass them, or run them without a test runner.

    import climlstm.testing

    class TestMine(climlstm.testing.LossTests):
        loss = Mine()

`climlstm plugins check NAME` runs the same. A check that a plugin fails for good reason is named in
`expected_failures`, with the reason; should it pass one day, pytest says so.
"""

from climlstm.testing.baselines import BaselineTests
from climlstm.testing.checks import Conformance, Outcome, check, run
from climlstm.testing.evaluators import EvaluatorTests
from climlstm.testing.losses import LossTests
from climlstm.testing.models import ModelTests
from climlstm.testing.transforms import TransformTests
from climlstm.testing.variables import VariableTests

__all__ = [
    "BaselineTests",
    "Conformance",
    "EvaluatorTests",
    "LossTests",
    "ModelTests",
    "Outcome",
    "TransformTests",
    "VariableTests",
    "check",
    "run",
]
