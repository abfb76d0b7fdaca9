"""Checks of evaluators, alone and within `climlstm.evaluation.evaluate`."""

import functools
import os
import sys
import tempfile
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import PluginError
from climlstm.evaluation.cases import PAST
from climlstm.evaluation.evaluate import Evaluation, evaluate
from climlstm.evaluation.regions import region_weights
from climlstm.plugins import NEEDS, Evaluator
from climlstm.plugins.channels import channel
from climlstm.testing.checks import Conformance, expect, expect_options, pickled
from climlstm.testing.variables import SPREAD, TYPICAL

LATITUDE = np.linspace(78.75, -78.75, 15)
LONGITUDE = np.arange(0, 360, 11.25)
STEP = np.timedelta64(6, "h")
START = np.datetime64("2020-01-01", "us")
ROUNDING = {"rtol": 1e-5, "atol": 1e-7}


class EvaluatorTests(Conformance):
    """What an evaluator promises; set `evaluator` to one, made with its options."""

    evaluator: ClassVar[Evaluator]
    members: ClassVar[int] = 3
    """Size of the ensembles that it is given, besides single forecasts."""

    def test_options_can_be_validated(self) -> None:
        """Its options are the fields of a dataclass; what it requires and needs can be had."""
        expect_options(type(self.evaluator))
        expect(isinstance(self.evaluator.requires, tuple), "'requires' is not a tuple of channels")
        unknown = set(_needs(self.evaluator)) - set(NEEDS)
        expect(not unknown, f"'needs' names {sorted(unknown)}; there are {', '.join(NEEDS)}")

    def test_tidy_tables(self) -> None:
        """Scores, one row each, with numbers for values; no row twice."""
        tables = [self._summary(self._evaluate(*weather)) for weather in self._weather()]
        expect(any(map(len, tables)), "it has no scores, of single forecasts or of ensembles")
        for table in tables:
            if len(table) and {"metric", "value"} <= set(table.columns):
                expect(
                    pd.api.types.is_numeric_dtype(table["value"]),
                    f"'value' is {table['value'].dtype}, not a number",
                )
                keys = ["variable", "level", "lead_time", "region", "metric", "model"]
                twice = table[table.duplicated([k for k in keys if k in table])]
                expect(twice.empty, f"a score is given twice: {twice.head(1).to_dict('records')}")

    def test_nothing_to_score(self) -> None:
        """Where no cell is ever observed it neither fails nor invents a score."""
        forecast, cube = self._single()
        mask = cube.isel(time=0, drop=True).notnull() & False
        table = self._evaluate(forecast.where(mask), cube.where(mask), observed=mask).scores
        value = table["value"].dropna() if len(table) else table["value"]
        errors = value[~table.loc[value.index, "n"].isin([0])] if len(value) else value
        expect(errors.empty, f"without a single observed cell it gives {errors.tolist()[:3]}")

    def test_single_lead(self) -> None:
        """One lead time is enough."""
        forecast, cube = self._single()
        found = self._evaluate(forecast.isel(lead_time=[1]), cube)
        leads = _leads(self._summary(found))
        expect(leads <= {np.timedelta64(12, "h")}, f"of a 12 h forecast it scores {leads}")

    def test_missing_cells(self) -> None:
        """Cells that are never observed (NaN) leave the scores of others standing."""
        forecast, cube = self._single()
        mask = xr.ones_like(cube.isel(time=0, drop=True), dtype=bool)
        for name in mask.data_vars:
            mask[name][:2, :3] = False
        whole = self._evaluate(forecast, cube).scores
        holed = self._evaluate(forecast.where(mask), cube.where(mask), observed=mask).scores
        keys = ["variable", "level", "lead_time", "region", "metric", "model"]
        lost = _defined(whole, keys) - _defined(holed, keys)
        share = len(lost) / max(1, len(_defined(whole, keys)))
        expect(
            share < 0.5,
            f"six missing cells take {len(lost)} scores with them: {min(lost, default='')}",
        )

    def test_latitude_order(self) -> None:
        """South to north it finds the same as north to south."""
        self._same("latitude", slice(None, None, -1), "with latitudes from south to north")

    def test_longitude_origin(self) -> None:
        """From -180 degrees it finds the same as from 0."""
        for forecast, cube in self._weather():
            turned = [_from_180(each) for each in (forecast, cube)]
            self._expect_same(
                self._cases(forecast, cube), self._cases(*turned), "with longitudes from -180"
            )

    def test_chunked_equals_whole(self) -> None:
        """Lazy chunks, however they are cut, give what the whole gives."""
        for forecast, cube in self._weather():
            chunks = {"lead_time": 1, "latitude": 4, "longitude": 5}
            lazy = forecast.chunk(chunks), cube.chunk({"time": 1, "latitude": 7})
            self._expect_same(self._cases(forecast, cube), self._cases(*lazy), "in chunks")

    def test_parts_merge_into_the_whole(self) -> None:
        """Initialisations scored apart, in any order, sum up to the same as together."""
        for forecast, cube in self._weather():
            parts = [
                self._cases(forecast.isel(init_time=part), cube)
                for part in (slice(2, None), slice(0, 2))
            ]
            merged = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
            whole = self._cases(forecast, cube)
            if not len(whole):
                continue
            self._expect_same(
                self.evaluator.summarise(whole), self.evaluator.summarise(merged), "in two parts"
            )

    def test_better_and_worse_differ(self) -> None:
        """A perfect forecast does not score like a bad one."""
        forecast, cube = self._single()
        leads = forecast.lead_time.values
        perfect = xr.concat(
            [
                cube.sel(time=init + leads).rename(time="lead_time").assign_coords(lead_time=leads)
                for init in forecast.init_time.values
            ],
            dim=forecast.init_time,
        )
        bad = self._summary(self._evaluate(forecast, cube))
        good = self._summary(self._evaluate(perfect, cube))
        if not len(bad):
            raise unittest.SkipTest("says nothing of single forecasts")
        expect(not _numbers_equal(bad, good), "it gives a perfect forecast the scores of a bad one")

    def test_deterministic(self) -> None:
        """The same forecast gets the same scores."""
        for forecast, cube in self._weather():
            first, second = (self._summary(self._evaluate(forecast, cube)) for _ in range(2))
            self._expect_same(first, second, "the second time")

    def test_inputs_are_left_alone(self) -> None:
        """Neither forecast nor truth is changed, nor the table that is summed up."""
        for forecast, cube in self._weather():
            for case, truth, given in self._pieces(forecast, cube):
                before = case.copy(deep=True), truth.copy(deep=True)
                self.evaluator.score(case, truth, **given)
                expect(case.identical(before[0]), "score() changes the forecast in place")
                expect(truth.identical(before[1]), "score() changes the truth in place")
            cases = self._cases(forecast, cube)
            if len(cases):
                kept = cases.copy(deep=True)
                self.evaluator.summarise(cases)
                expect(cases.equals(kept), "summarise() changes the table in place")

    def test_writes_no_files(self) -> None:
        """It writes nothing anywhere: what it finds is in its tables."""
        forecast, cube = self._single()
        self._evaluate(forecast, cube)  # libraries that it loads may cache what they compile
        with _watched() as written:
            self._evaluate(forecast, cube)
        expect(not written, f"it writes {', '.join(sorted(set(written))[:3])}")

    def test_picklable(self) -> None:
        """It can be sent to other workers."""
        pickled(self.evaluator)

    def _same(self, dim: str, order: slice, what: str) -> None:
        for forecast, cube in self._weather():
            turned = forecast.isel({dim: order}), cube.isel({dim: order})
            self._expect_same(self._cases(forecast, cube), self._cases(*turned), what)

    def _expect_same(self, wanted: pd.DataFrame, found: pd.DataFrame, what: str) -> None:
        expect(
            _numbers_equal(wanted, found),
            f"{what} it gives other numbers: {_difference(wanted, found)}",
        )

    def _summary(self, found: Evaluation) -> pd.DataFrame:
        return found.scores if len(found.scores) else found.tables.get("it", found.scores)

    def _evaluate(self, forecast: xr.Dataset, cube: xr.Dataset, **more: Any) -> Evaluation:
        return evaluate(
            forecast,
            cube,
            evaluators={"it": self.evaluator},
            climatology=_climatology(cube),
            baselines=(),
            **more,
        )

    def _cases(self, forecast: xr.Dataset, cube: xr.Dataset) -> pd.DataFrame:
        """What score() gives, one initialisation after another, as it is given to summarise()."""
        tables = [
            self.evaluator.score(case, truth, **given).assign(init_time=case.init_time.values)
            for case, truth, given in self._pieces(forecast, cube)
        ]
        return pd.concat(tables, ignore_index=True)

    def _pieces(
        self, forecast: xr.Dataset, cube: xr.Dataset
    ) -> Iterator[tuple[xr.Dataset, xr.Dataset, dict[str, Any]]]:
        """Forecast, truth and what else it needs, for one initialisation after another."""
        weight = region_weights(forecast.latitude, forecast.longitude, ("global",))
        for init in forecast.init_time.values:
            case = forecast.sel(init_time=init)
            case = case.assign_coords(valid_time=case.init_time + case.lead_time)
            truth = cube.sel(time=case.valid_time).drop_vars("time")
            normal = cube.mean("time").broadcast_like(truth).transpose(*truth.dims)
            past = cube.sel(time=slice(init - PAST, init)).rename(time="lead_time")
            past = past.assign_coords(
                init_time=init, lead_time=past.lead_time.values - init, valid_time=past.lead_time
            )
            offered = {"weight": weight, "climatology": normal, "past": past}
            yield case, truth, {need: offered[need] for need in _needs(self.evaluator)}

    def _single(self) -> tuple[xr.Dataset, xr.Dataset]:
        return next(self._weather())

    def _weather(self) -> Iterator[tuple[xr.Dataset, xr.Dataset]]:
        """Four forecasts of three leads, and the cube: single ones, then ensembles."""
        names = self.evaluator.requires or ("t2m", "msl")
        cube = _cube(names).copy(deep=True)
        leads = np.arange(1, 4) * STEP
        inits = cube.time.values[:4]
        true = xr.concat(
            [
                cube.sel(time=init + leads).rename(time="lead_time").assign_coords(lead_time=leads)
                for init in inits
            ],
            dim=xr.DataArray(inits, dims="init_time", name="init_time"),
        )
        generator = np.random.default_rng(11)
        yield _noisy(true, generator), cube
        number = xr.DataArray(np.arange(self.members), dims="realization", name="realization")
        yield xr.concat([_noisy(true, generator) for _ in range(self.members)], dim=number), cube


@functools.lru_cache(maxsize=1)
def _cube(names: tuple[str, ...]) -> xr.Dataset:
    """Waves that travel east, and a low in each variable, at ten times."""
    times = START + np.arange(10) * STEP
    phi, lam = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None, :]
    fields = {}
    for number, name in enumerate(names):
        units = _units(name)
        states = []
        for step in range(times.size):
            waves = 0.5 * np.cos(phi) ** 2 * np.cos(3 * lam - 0.2 * step + number)
            centre = np.deg2rad(150 + 5 * step)
            distance = np.sin(phi) * np.sin(0.8) + np.cos(phi) * np.cos(0.8) * np.cos(lam - centre)
            states.append(waves - 3 * np.exp((distance - 1) / 0.03))
        values = TYPICAL.get(units, 0.0) + SPREAD.get(units, 8.0) * np.array(states)
        fields[name] = (
            ("time", "latitude", "longitude"),
            values.astype("float32"),
            {"units": units},
        )
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset(fields, coords=coords)


def _units(name: str) -> str:
    try:
        return channel(name).variable.units
    except PluginError:
        return "1"


def _noisy(true: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    noisy = true.copy(deep=True)
    for array in noisy.values():
        spread = 0.1 * SPREAD.get(array.attrs["units"], 8.0)
        array += generator.normal(0, spread, array.shape).astype("float32")
    return noisy


def _climatology(cube: xr.Dataset) -> xr.Dataset:
    mean = cube.mean("time", keep_attrs=True)
    hours, days = np.arange(0, 24, 6), np.arange(1, 367)
    return mean.expand_dims(hour=hours, dayofyear=days)


def _needs(evaluator: Evaluator) -> tuple[str, ...]:
    return getattr(evaluator, "needs", ())


def _from_180(dataset: xr.Dataset) -> xr.Dataset:
    longitude = (dataset.longitude + 180) % 360 - 180
    return dataset.assign_coords(longitude=longitude).sortby("longitude")


def _leads(table: pd.DataFrame) -> set[np.timedelta64]:
    return set(table["lead_time"].dropna().to_numpy()) if "lead_time" in table else set()


def _defined(table: pd.DataFrame, keys: list[str]) -> set[str]:
    """Which scores have a number."""
    there = table[table["value"].notna()] if len(table) else table
    return {", ".join(map(str, row)) for row in there[keys].itertuples(index=False)}


def _numbers_equal(wanted: pd.DataFrame, found: pd.DataFrame) -> bool:
    return _difference(wanted, found) == ""


def _difference(wanted: pd.DataFrame, found: pd.DataFrame) -> str:
    """Where two tables differ by more than rounding, whatever the order of their rows."""
    if len(wanted) != len(found) or set(wanted.columns) != set(found.columns):
        return f"{len(found)} rows of {list(found)} instead of {len(wanted)} of {list(wanted)}"
    wanted, found = _in_order(wanted), _in_order(found)
    for name in wanted.columns:
        left, right = wanted[name].to_numpy(), found[name].to_numpy()
        if pd.api.types.is_float_dtype(wanted[name]):
            left, right = (
                np.asarray(pd.to_numeric(side[name]), dtype=float) for side in (wanted, found)
            )
            if name in {"lon", "longitude"}:
                left, right = left % 360, right % 360
            bad = ~np.isclose(left, right, equal_nan=True, **ROUNDING)
        elif name in {"i", "j"}:  # places in the grid depend on its order
            continue
        else:
            bad = np.array([str(a) != str(b) for a, b in zip(left, right, strict=True)], dtype=bool)
        if bad.any():
            return f"'{name}' is {right[bad][0]} instead of {left[bad][0]}"
    return ""


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by what they are about, then by their numbers."""
    texts = [n for n in table if not pd.api.types.is_float_dtype(table[n]) and n not in {"i", "j"}]
    floats = [n for n in table if pd.api.types.is_float_dtype(table[n])]
    order = table.assign(
        **{n: table[n].astype(str) for n in texts}, **{n: table[n].round(4) for n in floats}
    ).sort_values([*texts, *floats])
    return table.loc[order.index].reset_index(drop=True)


_watching: list[list[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: note files that are opened for writing, made, moved or deleted."""
    if not _watching:
        return
    changes = event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
    if event == "open" and isinstance(arguments[2], int):
        changes = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if changes and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        if "__pycache__" not in path and path != os.devnull:
            _watching[-1].append(path)


_hooked: list[bool] = []


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Paths that are written to meanwhile, by Python or by libraries, into the working folder."""
    if not _hooked:
        sys.addaudithook(_hear)  # cannot be taken away again, so it sleeps until somebody watches
        _hooked.append(True)
    written: list[str] = []
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _watching.append(written)
        try:
            yield written
        finally:
            _watching.pop()
            os.chdir(home)
            written += [str(path) for path in Path(folder).rglob("*")]
