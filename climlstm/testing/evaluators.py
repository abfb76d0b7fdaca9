"""Checks of evaluators, alone and within `climlstm.evaluation.evaluate`."""

import functools
import os
import sys
import tempfile
import unittest
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from climlstm.errors import PluginError
from climlstm.evaluation.cases import PAST
from climlstm.evaluation.evaluate import evaluate
from climlstm.evaluation.regions import region_weights
from climlstm.plugins import NEEDS, Evaluator
from climlstm.plugins.channels import channel
from climlstm.testing.checks import Conformance, expect, expect_options, pickled
from climlstm.testing.variables import SPREAD, TYPICAL

LATITUDE = np.linspace(78.75, -78.75, 15)
LONGITUDE = np.arange(0, 360, 11.25)
STEP = np.timedelta64(6, "h")
START = np.datetime64("2020-01-01", "us")
LEADS = np.arange(1, 4) * STEP
KEYS = ["variable", "level", "lead_time", "region", "metric", "model"]

Weather = tuple[xr.Dataset, xr.Dataset]
"""Four forecasts of three leads, and the cube with their truth."""


class EvaluatorTests(Conformance):
    """Promises of an evaluator; set `evaluator` to one, made with its options."""

    evaluator: ClassVar[Evaluator]
    members: ClassVar[int] = 3
    """Size of the ensembles that it is given, besides single forecasts."""

    def test_options_can_be_validated(self) -> None:
        """Its options are the fields of a dataclass; what it requires and needs can be had."""
        expect_options(type(self.evaluator))
        expect(isinstance(self.evaluator.requires, tuple), "'requires' is not a tuple of channels")
        unknown = set(self._needs) - set(NEEDS)
        expect(not unknown, f"'needs' names {sorted(unknown)}; there are {', '.join(NEEDS)}")

    def test_tidy_tables(self) -> None:
        """Scores, one row each, with numbers for values; no row twice."""
        tables = [self._summary(*weather) for weather in self._weather()]
        expect(any(map(len, tables)), "it has no scores, of single forecasts or of ensembles")
        for table in tables:
            if not len(table) or not {"metric", "value"} <= set(table.columns):
                continue
            kind = table["value"].dtype
            expect(pd.api.types.is_numeric_dtype(kind), f"'value' is {kind}, not a number")
            twice = table[table.duplicated([k for k in KEYS if k in table])]
            expect(twice.empty, f"a score is given twice: {twice.head(1).to_dict('records')}")

    def test_nothing_to_score(self) -> None:
        """Where no cell is ever observed it neither fails nor invents a score."""
        table = self._masked(slice(None), slice(None))
        if len(table):
            invented = table["value"][table["value"].notna() & (table["n"] != 0)].tolist()
            expect(not invented, f"without a single observed cell it gives {invented[:3]}")

    def test_single_lead(self) -> None:
        """One lead time is enough."""
        forecast, cube = self._single()
        table = self._summary(forecast.isel(lead_time=[1]), cube)
        leads = set(table["lead_time"].dropna().to_numpy()) if "lead_time" in table else set()
        expect(leads <= {LEADS[1]}, f"of a 12 h forecast it scores {leads}")

    def test_missing_cells(self) -> None:
        """Cells that are never observed (NaN) leave the scores of others standing."""
        whole = _defined(self._scores(*self._single()))
        lost = whole - _defined(self._masked(slice(2), slice(3)))
        expect(
            len(lost) < 0.5 * max(1, len(whole)),
            f"six missing cells take {len(lost)} scores with them: {min(lost, default='')}",
        )

    def test_latitude_order(self) -> None:
        """South to north it finds the same as north to south."""
        self._same(lambda ds: ds.isel(latitude=slice(None, None, -1)), "from south to north")

    def test_longitude_origin(self) -> None:
        """Longitudes from -180 degrees give the same as those from 0."""
        self._same(_from_180, "with longitudes from -180")

    def test_chunked_equals_whole(self) -> None:
        """Lazy chunks, however they are cut, give what the whole gives."""
        self._same(_in_chunks, "in chunks")

    def test_parts_merge_into_the_whole(self) -> None:
        """Initialisations scored apart, in any order, sum up to the same as together."""
        for forecast, cube in self._weather():
            halves = (forecast.isel(init_time=part) for part in (slice(2, None), slice(0, 2)))
            parts = [self._cases(half, cube) for half in halves]
            whole = self._cases(forecast, cube)
            if len(whole):
                merged = pd.concat([part for part in parts if len(part)], ignore_index=True)
                together, apart = map(self.evaluator.summarise, (whole, merged))
                _expect_same(together, apart, "in two parts")

    def test_better_and_worse_differ(self) -> None:
        """A perfect forecast does not score like a bad one."""
        forecast, cube = self._single()
        bad = self._summary(forecast, cube)
        if not len(bad):
            raise unittest.SkipTest("says nothing of single forecasts")
        good = self._summary(_perfect(cube), cube)
        expect(_difference(bad, good), "it gives a perfect forecast the scores of a bad one")

    def test_deterministic(self) -> None:
        """The same forecast gets the same scores."""
        for weather in self._weather():
            _expect_same(self._summary(*weather), self._summary(*weather), "the second time")

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
        """It writes nothing anywhere: its results are in its tables."""
        weather = self._single()
        self._scores(*weather)  # libraries that it loads may cache what they compile
        with _watched() as written:
            self._scores(*weather)
        expect(not written, f"it writes {', '.join(sorted(set(written))[:3])}")

    def test_picklable(self) -> None:
        """It can be sent to other workers."""
        pickled(self.evaluator)

    @property
    def _needs(self) -> tuple[str, ...]:
        return getattr(self.evaluator, "needs", ())

    def _same(self, change: Callable[[xr.Dataset], xr.Dataset], what: str) -> None:
        for forecast, cube in self._weather():
            changed = self._cases(change(forecast), change(cube))
            _expect_same(self._cases(forecast, cube), changed, what)

    def _evaluate(self, forecast: xr.Dataset, cube: xr.Dataset, **more: Any) -> Any:
        mean = cube.astype("float64").mean("time", keep_attrs=True)
        normal = mean.expand_dims(hour=np.arange(0, 24, 6), dayofyear=np.arange(1, 367))
        given = {"it": self.evaluator}
        return evaluate(forecast, cube, evaluators=given, climatology=normal, baselines={}, **more)

    def _scores(self, forecast: xr.Dataset, cube: xr.Dataset, **more: Any) -> pd.DataFrame:
        scores: pd.DataFrame = self._evaluate(forecast, cube, **more).scores
        return scores

    def _summary(self, forecast: xr.Dataset, cube: xr.Dataset) -> pd.DataFrame:
        """Its scores, or if it has none, its own table."""
        found = self._evaluate(forecast, cube)
        return found.scores if len(found.scores) else found.tables.get("it", found.scores)

    def _masked(self, rows: slice, columns: slice) -> pd.DataFrame:
        """Scores where the cells of these rows and columns are never observed."""
        forecast, cube = self._single()
        mask = xr.ones_like(cube.isel(time=0, drop=True), dtype=bool)
        for name in mask.data_vars:
            mask[name][rows, columns] = False
        return self._scores(forecast.where(mask), cube.where(mask), observed=mask)

    def _cases(self, forecast: xr.Dataset, cube: xr.Dataset) -> pd.DataFrame:
        """Tables of score(), one initialisation after another, as summarise() gets them."""
        tables = [
            self.evaluator.score(case, truth, **given).assign(init_time=case.init_time.values)
            for case, truth, given in self._pieces(forecast, cube)
        ]
        return pd.concat(tables, ignore_index=True)

    def _pieces(
        self, forecast: xr.Dataset, cube: xr.Dataset
    ) -> Iterator[tuple[xr.Dataset, xr.Dataset, dict[str, Any]]]:
        """Forecast, truth and all else that it needs, for one initialisation after another."""
        weight = region_weights(forecast, ("global",))
        for init in forecast.init_time.values:
            case = forecast.sel(init_time=init)
            case = case.assign_coords(valid_time=case.init_time + case.lead_time)
            truth = cube.sel(time=case.valid_time).drop_vars("time")
            mean = cube.astype("float64").mean("time")
            normal = mean.broadcast_like(truth).transpose(*truth.dims)
            past = cube.sel(time=slice(init - PAST, init)).rename(time="lead_time")
            past = past.assign_coords(
                init_time=init, lead_time=past.lead_time.values - init, valid_time=past.lead_time
            )
            if getattr(self.evaluator, "streams", False):
                truth = cube
            offered = {"weight": weight, "climatology": normal, "past": past}
            yield case, truth, {need: offered[need] for need in self._needs}

    def _single(self) -> Weather:
        return next(self._weather())

    def _weather(self) -> Iterator[Weather]:
        """Single forecasts, then ensembles."""
        cube = _cube(self.evaluator.requires or ("t2m", "msl")).copy(deep=True)
        true, generator = _perfect(cube), np.random.default_rng(11)
        yield _noisy(true, generator), cube
        number = xr.DataArray(np.arange(self.members), dims="realization", name="realization")
        yield xr.concat([_noisy(true, generator) for _ in range(self.members)], dim=number), cube


@functools.lru_cache(maxsize=1)
def _cube(names: tuple[str, ...]) -> xr.Dataset:
    """Waves that travel east, and a low in each variable, at ten times."""
    phi, lam = np.deg2rad(LATITUDE)[:, None], np.deg2rad(LONGITUDE)[None, :]
    fields = {}
    step = np.arange(10)[:, None, None]
    centre = lam - np.deg2rad(150 + 5 * step)
    distance = np.sin(phi) * np.sin(0.8) + np.cos(phi) * np.cos(0.8) * np.cos(centre)
    for number, name in enumerate(names):
        try:
            units = channel(name).variable.units
        except PluginError:
            units = "1"
        waves = 0.5 * np.cos(phi) ** 2 * np.cos(3 * lam - 0.2 * step + number)
        states = waves - 3 * np.exp((distance - 1) / 0.03)
        values = TYPICAL.get(units, 0.0) + SPREAD.get(units, 8.0) * states
        dims = ("time", "latitude", "longitude")
        fields[name] = (dims, values.astype("float32"), {"units": units})
    times = START + np.arange(10) * STEP
    coords = {"time": times, "latitude": LATITUDE, "longitude": LONGITUDE}
    return xr.Dataset(fields, coords=coords)


def _perfect(cube: xr.Dataset) -> xr.Dataset:
    """Forecasts of the cube itself, from its first four times."""
    init_time = xr.DataArray(cube.time.values[:4], dims="init_time")
    lead_time = xr.DataArray(LEADS, dims="lead_time")
    chosen = cube.sel(time=init_time + lead_time).drop_vars("time")
    return chosen.assign_coords(init_time=init_time.values, lead_time=LEADS)


def _noisy(true: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    noisy = true.copy(deep=True)
    for array in noisy.values():
        spread = 0.1 * SPREAD.get(array.attrs["units"], 8.0)
        array += generator.normal(0, spread, array.shape).astype("float32")
    return noisy


def _from_180(dataset: xr.Dataset) -> xr.Dataset:
    longitude = (dataset.longitude + 180) % 360 - 180
    return dataset.assign_coords(longitude=longitude).sortby("longitude")


def _in_chunks(dataset: xr.Dataset) -> xr.Dataset:
    forecast = "lead_time" in dataset.dims
    return dataset.chunk(
        {"lead_time": 1, "latitude": 4, "longitude": 5} if forecast else {"time": 1, "latitude": 7}
    )


def _defined(table: pd.DataFrame) -> set[str]:
    """Names of the scores that have a number."""
    there = table[table["value"].notna()] if len(table) else table
    return {", ".join(map(str, row)) for row in there[KEYS].itertuples(index=False)}


def _expect_same(wanted: pd.DataFrame, found: pd.DataFrame, what: str) -> None:
    difference = _difference(wanted, found)
    expect(not difference, f"{what} it gives other numbers: {difference}")


def _difference(wanted: pd.DataFrame, found: pd.DataFrame) -> str:
    """How two tables differ by more than rounding, whatever the order of their rows."""
    if len(wanted) != len(found) or set(wanted.columns) != set(found.columns):
        return f"{len(found)} rows of {list(found)} instead of {len(wanted)} of {list(wanted)}"
    given = {"check_dtype": False, "check_like": True, "rtol": 1e-5, "atol": 1e-7}
    try:
        pd.testing.assert_frame_equal(_in_order(wanted), _in_order(found), **given)
    except AssertionError as error:
        return " ".join(str(error).split())
    return ""


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by their texts, then by their numbers; without places in a grid, which depend on
    the order of its rows and columns."""
    table = table.drop(columns=["i", "j"], errors="ignore")
    turned = [name for name in ("lon", "longitude") if name in table]
    table = table.assign(**table[turned] % 360)
    floats = [name for name in table if pd.api.types.is_float_dtype(table[name])]
    texts = [name for name in table if name not in floats]
    keys = table.assign(**table[texts].astype(str), **table[floats].round(4))
    return table.loc[keys.sort_values([*texts, *floats]).index].reset_index(drop=True)


@functools.cache
def _changed_files() -> deque[str]:
    """The last files that this process opened for writing, made, moved or deleted."""
    paths: deque[str] = deque(maxlen=100)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        flags = arguments[2] if event == "open" else 0
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        changes = event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
        if (writes or changes) and isinstance(arguments[0], str | bytes | os.PathLike):
            paths.append(os.fsdecode(arguments[0]))

    sys.addaudithook(note)
    return paths


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Paths that are written to meanwhile, by Python or by libraries, into the working folder."""
    written: list[str] = []
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        _changed_files().clear()
        yield written
        written += [p for p in _changed_files() if p != os.devnull and "__pycache__" not in p]
        written += [str(path) for path in Path(folder).rglob("*")]
