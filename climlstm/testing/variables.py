"""Checks of variables, which are values, and of how they are derived from others."""

import re
import unittest
from collections.abc import Iterator
from typing import Any, ClassVar

import dask
import numpy as np
import xarray as xr

from climlstm import plugins
from climlstm.data.sources.units import conversion
from climlstm.errors import ClimLSTMError, DataError, PluginError
from climlstm.plugins import Variable
from climlstm.testing.checks import Conformance, expect, expect_version

TYPICAL = {"K": 280.0, "Pa": 101325.0, "m2 s-2": 54000.0, "1": 0.5, "%": 50.0}
"""About the mean of a quantity in this unit; 0 in others."""

SPREAD = {"K": 10.0, "Pa": 1000.0, "m2 s-2": 2000.0, "1": 0.2, "%": 20.0, "kg kg-1": 0.003}
"""About its standard deviation; 8 in others."""

Inputs = tuple[str, xr.Dataset]
"""Kind of grid, and fields of the inputs on it."""


class VariableTests(Conformance):
    """Promises of a variable; set `variable`, and if it is derived, override `known`."""

    variable: ClassVar[Variable]

    def known(self) -> tuple[xr.Dataset, xr.DataArray] | None:
        """Inputs whose right answer is known, and that answer."""
        return None

    tolerance: ClassVar[float] = 1e-4
    """Relative error allowed against `known`."""

    def test_is_a_variable(self) -> None:
        """It is a climlstm.plugins.Variable of an interface version that fits."""
        kind = type(self.variable).__name__
        right = isinstance(self.variable, Variable)
        expect(right, f"it is a {kind}, not a climlstm.plugins.Variable")
        expect_version(self.variable)

    def test_name(self) -> None:
        """Its name is a plain word, without a digit at the end where a level is put after it."""
        name = self.variable.name
        expect(re.fullmatch(r"[A-Za-z]\w*", name), f"'{name}' is not a plain word")
        expect(
            not (self.variable.on_levels and name[-1].isdigit()),
            f"'{name}' ends in a digit, so '{name}500' could not be told from a name",
        )
        expect(self.variable.long_name, "it has no long_name")

    def test_units(self) -> None:
        """Its units, and those it is displayed in, are understood and of one dimension."""
        variable = self.variable
        shown = variable.style.units or variable.units
        self._expect_convertible(f"{variable.units} ", shown, f"shown in '{shown}'")

    def test_cf_names(self) -> None:
        """Its standard name is spelled as CF does, with units like other variables of that name."""
        name = self.variable.standard_name
        if name is None:
            raise unittest.SkipTest("has no standard_name")
        plain = re.fullmatch(r"[a-z][a-z0-9_]*", name)
        expect(plain, f"the standard name '{name}' is not in lower case with underscores")
        for other in _built_in():
            if other.standard_name == name:
                what = f"but the variable '{other.name}' keeps '{name}' in '{other.units}'"
                self._expect_convertible(self.variable.units, other.units, what)

    def _expect_convertible(self, units: str, into: str, what: str) -> None:
        try:
            conversion(units, into, standard_name=self.variable.standard_name)
        except DataError as error:
            raise AssertionError(f"its units are '{units.strip()}', {what}: {error}") from None

    def test_inputs_are_known(self) -> None:
        """Its inputs are installed variables; it has inputs if it has derive()."""
        variable = self.variable
        expect(
            bool(variable.inputs) == (variable.derive is not None),
            f"inputs are {variable.inputs}, but derive is {variable.derive}: set both or neither",
        )
        for name in variable.inputs:
            try:
                needed = plugins.load("variables", name)
            except PluginError as error:
                raise AssertionError(f"its input '{name}': {error}") from None
            expect(
                variable.on_levels or not needed.on_levels,
                f"its input '{name}' is on levels, but it is not, so no level could be chosen",
            )

    def test_derived_on_every_grid(self) -> None:
        """Regions, whole globes with and without rows on the poles: dimensions as those of the
        inputs, and finite."""
        for what, inputs in self._grids():
            derived = self._derive(inputs)
            dims = inputs[self.variable.inputs[0]].dims
            same = set(derived.dims) == set(dims)
            expect(same, f"{what}: dimensions {derived.dims} instead of {dims}")
            derived = derived.transpose(*dims)
            shape = inputs[self.variable.inputs[0]].shape
            expect(derived.shape == shape, f"{what}: shape {derived.shape}, not {shape}")
            bad = inputs.latitude.values[np.argwhere(~np.isfinite(derived.values))[:, 1]]
            first = f"the first at latitude {bad[0]}" if bad.size else ""
            expect(not bad.size, f"{what}: {bad.size} values are not finite, {first}")

    def test_known_field(self) -> None:
        """Where the right answer is known it gives that answer."""
        known = self.known()
        if known is None:
            raise unittest.SkipTest("no known field: override known() in a subclass")
        inputs, expected = known
        derived = self._derive(inputs).transpose(*expected.dims)
        error, scale = (float(np.abs(x).max()) for x in (derived - expected, expected))
        expect(
            error <= self.tolerance * scale,
            f"the error is {error:.3g} {self.variable.units} where values reach {scale:.3g}",
        )

    def test_lazy(self) -> None:
        """It makes Dask arrays of Dask arrays, computes nothing yet, and means the same."""
        for what, inputs in self._grids():
            with dask.config.set(scheduler=_forbidden):
                derived = self._derive(inputs.chunk(time=1))
            expect(derived.chunks is not None, f"{what}: it computes its inputs instead of waiting")
            same = _close(derived.compute(scheduler="sync"), self._derive(inputs))
            expect(same, f"{what}: chunked in time it gives other values")

    def test_one_time_does_not_see_another(self) -> None:
        """Each time is derived from itself alone: nothing leaks from the future."""
        for what, inputs in self._grids():
            whole = self._derive(inputs)
            for time in range(inputs.sizes["time"]):
                alone = self._derive(inputs.isel(time=[time]))
                same = _close(alone, whole.isel(time=[time]))
                expect(same, f"{what}: step {time} alone gives other values than among others")

    def test_missing_input_is_named(self) -> None:
        """Without one of its inputs it fails, and says which."""
        _, inputs = next(self._grids())
        for name in self.variable.inputs:
            try:
                self._derive(inputs.drop_vars(name))
            except (ClimLSTMError, KeyError, ValueError, TypeError, AttributeError) as error:
                expect(name in str(error), f"without '{name}' it only says: {error!r}")
            else:
                raise AssertionError(f"'{name}' is among its inputs, but it does without it")

    def test_inputs_are_left_alone(self) -> None:
        """derive() changes nothing that it is given."""
        for what, inputs in self._grids():
            before = inputs.copy(deep=True)
            self._derive(inputs)
            expect(inputs.identical(before), f"{what}: it changes its inputs in place")

    def _derive(self, inputs: xr.Dataset) -> xr.DataArray:
        assert self.variable.derive is not None
        derived = self.variable.derive(inputs)
        kind = type(derived).__name__
        expect(kind == "DataArray", f"derive() gives a {kind} instead of a DataArray")
        return derived

    def _grids(self) -> Iterator[Inputs]:
        """Smooth fields of the inputs on grids of every kind."""
        if self.variable.derive is None:
            raise unittest.SkipTest("is read from files, not derived")
        globe = np.arange(0, 360, 22.5)
        for what, latitude, longitude in (
            ("region", np.linspace(60, 30, 6), np.linspace(-20, 20, 7)),
            ("globe", np.linspace(78.75, -78.75, 8), globe),
            ("globe with rows on the poles", np.linspace(90, -90, 9), globe),
        ):
            yield what, _fields(self.variable.inputs, latitude, longitude)


def _fields(names: tuple[str, ...], latitude: Any, longitude: Any) -> xr.Dataset:
    """Smooth fields (time, latitude, longitude) of about the size that their units suggest."""
    generator = np.random.default_rng(5)
    phi, lam = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None, :]
    fields = {}
    for name in names:
        units = plugins.load("variables", name).units
        phase = generator.uniform(0, 6, size=(3, 1, 1))
        waves = np.cos(phi) ** 2 * np.cos(2 * lam + phase) + 0.5 * np.sin(2 * phi + phase)
        values = TYPICAL.get(units, 0.0) + SPREAD.get(units, 8.0) * waves
        fields[name] = (("time", "latitude", "longitude"), values.astype("float32"))
    times = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(6, "h")
    return xr.Dataset(fields, coords={"time": times, "latitude": latitude, "longitude": longitude})


def _close(found: xr.DataArray, wanted: xr.DataArray) -> bool:
    return bool(np.allclose(found, wanted, equal_nan=True))


def _built_in() -> Iterator[Variable]:
    for plugin in plugins.discover("variables"):
        if plugin.distribution == plugins.BUILT_IN:
            yield plugins.load("variables", f"{plugin.distribution}:{plugin.name}")


def _forbidden(*_: Any, **__: Any) -> Any:
    raise AssertionError("it computes while deriving; use operations of xarray that wait for Dask")
