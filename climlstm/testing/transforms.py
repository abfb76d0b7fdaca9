"""Checks of transforms.

A transform of quantities that are never negative need not give back negative values, but must give
finite numbers for them.
"""

from typing import ClassVar

import torch

from climlstm.plugins import Transform
from climlstm.testing.checks import Conformance, expect, expect_options, pickled

VALUES = torch.cat([torch.zeros(1), torch.logspace(-4, 0, 41)])
"""Values that every transform must know: from 0 to 1, which a fraction can have, too."""


class TransformTests(Conformance):
    """Promises of a transform; set `transform` to one, made with its options."""

    transform: ClassVar[Transform]

    def test_options_can_be_validated(self) -> None:
        """Its options are the fields of a dataclass, and its interface version fits."""
        expect_options(type(self.transform))

    def test_values_come_back(self) -> None:
        """The inverse of a transformed value is the value."""
        back = self.transform.inverse(self.transform.forward(VALUES))
        worst = (back - VALUES).abs().max().item()
        expect(worst < 1e-4, f"values from 0 to 1 come back with errors up to {worst:.2g}")

    def test_order_is_kept(self) -> None:
        """Greater values stay greater, so that bounds and quantiles mean the same."""
        changes = self.transform.forward(VALUES).diff()
        expect(bool((changes > 0).all()), "it is not strictly increasing from 0 to 1")

    def test_finite_for_values_that_cannot_be(self) -> None:
        """Slightly negative values, as packed files have them, give finite numbers."""
        value = self.transform.forward(torch.tensor([-1e-6]))
        expect(bool(torch.isfinite(value).all()), f"-1e-6 gives {value.item()}")

    def test_missing_values_stay_missing(self) -> None:
        """NaN stays NaN, either way."""
        missing = torch.tensor([torch.nan])
        both = torch.cat([self.transform.forward(missing), self.transform.inverse(missing)])
        expect(bool(both.isnan().all()), f"NaN gives {both.tolist()}")

    def test_type_and_input_are_kept(self) -> None:
        """It gives tensors of the same type and shape, and leaves its input as it was."""
        given = VALUES.reshape(2, -1).clone()
        for function in (self.transform.forward, self.transform.inverse):
            out = function(given)
            same = out.dtype == given.dtype and out.shape == given.shape
            expect(
                same, f"{given.dtype} {tuple(given.shape)} became {out.dtype} {tuple(out.shape)}"
            )
            expect(torch.equal(given, VALUES.reshape(2, -1)), "it changes its input")

    def test_can_be_sent_to_workers(self) -> None:
        """It can be pickled, and the copy does the same."""
        copy = pickled(self.transform)
        same = torch.equal(copy.forward(VALUES), self.transform.forward(VALUES))
        expect(same, "its copy gives other values")
