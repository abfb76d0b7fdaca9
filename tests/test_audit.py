"""The audit: each rule catches its planted fault, and is silent on the clean twin."""

import dataclasses
import json
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from climlstm.audit import audit as audits
from climlstm.audit import chunking, leaks, plausibility
from climlstm.cli import app
from climlstm.config import Config
from climlstm.data.cube.cube import plan_cube
from climlstm.data.cube.forcing import forcing_fields
from climlstm.data.statistics.climatology import climatology, period_of
from climlstm.data.statistics.statistics import compute_statistics
from climlstm.data.windows.starts import plan_windows
from climlstm.errors import DataError
from climlstm.forecasting import open_forecasts
from climlstm.grid.axes import Selection
from climlstm.runs import (
    audit_scoring,
    check_run,
    evaluate_run,
    forecast_run,
    open_cube,
    parse_times,
)

STEP = np.timedelta64(6, "h")
PERIODS = {
    "train": ["2001-01-01", "2001-02-15"],
    "valid": ["2001-02-16", "2001-03-10"],
    "test": ["2001-03-11", "2001-04-05"],
}


def make_config(**data):
    """A run on two channels of 8 x 16 cells; keyword arguments replace keys of its data section."""
    section = {
        "catalog": "catalog.yaml",
        "source": "atmosphere",
        "step": "6h",
        "state": ["t2m", "msl"],
        "forcing": ["season"],
        "periods": PERIODS,
    }
    return Config.model_validate(
        {
            "name": "small",
            "data": section | data,
            "model": {"options": {"hidden": [8]}},
            "training": {"horizon": 2, "batch_size": 8},
        }
    )


def make_source(**replaced):
    """95 days of two fields with values as on Earth; keyword arguments replace variables."""
    times = np.arange("2001-01-01", "2001-04-06", STEP, dtype="datetime64[ns]")
    latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(16) * 22.5
    noise = np.random.default_rng(0).standard_normal((2, times.size, 8, 16))
    dims = ("time", "latitude", "longitude")
    fields = {
        "t2m": (dims, (280 + 10 * noise[0]).astype("float32"), {"units": "K"}),
        "msl": (dims, (101000 + 800 * noise[1]).astype("float32"), {"units": "Pa"}),
    }
    coords = {"time": times, "latitude": latitude, "longitude": longitude}
    return xr.Dataset(fields | replaced, coords).chunk({"time": 20})


def found(source=None, config=None, **options):
    """Rules of the findings of an audit, notes left out."""
    config = config or make_config()
    result = audits.audit(config, plan_cube(source or make_source(), config.data), **options)
    return {finding.rule for finding in result.findings if finding.severity != "note"}


def rules(findings):
    return {finding.rule for finding in findings}


def spans(**replaced):
    bounds = make_config().data.periods.spans
    return bounds | {name: tuple(map(pd.Timestamp, span)) for name, span in replaced.items()}


def test_a_clean_run_passes_and_says_what_was_read():
    config = make_config()
    result = audits.audit(config, plan_cube(make_source(), config.data), parameters=1000)
    assert result.findings == ()
    assert result.passed
    assert result.steps_read == audits.SAMPLE_STEPS
    assert 0 < result.bytes_read <= 2 * 380 * 8 * 16 * 4
    assert json.loads(json.dumps(result.to_dict()))["digest"] == result.digest
    result.require("small")


def test_every_finding_says_what_where_value_and_fix():
    config = make_config()
    source = make_source(msl=make_source()["msl"] / 100)
    source["msl"].attrs["units"] = "Pa"
    result = audits.audit(config, plan_cube(source, config.data))
    [finding] = result.findings
    assert "cannot be in 'Pa'" in finding.what
    assert "channel 'msl'" in finding.where
    assert "9" in finding.value
    assert "units: hPa" in finding.fix
    with pytest.raises(DataError, match=r"found 1 error:\n- The values of 'msl'.*units: hPa"):
        result.require("small")


# Leaks: the known public mistakes first.


@pytest.mark.parametrize(
    ("valid", "test", "expected"),
    [
        (("2001-03-11", "2001-04-05"), ("2001-03-11", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-01", "2001-03-01"), ("2001-03-11", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-16", "2001-03-10"), ("2001-03-10", "2001-04-05"), {"periods-overlap"}),
        (("2001-02-16", "2001-03-10"), ("2001-03-11", "2001-04-05"), set()),
    ],
    ids=["validation = test", "validation within training", "one moment shared", "clean"],
)
def test_periods_that_overlap(valid, test, expected):
    assert rules(leaks.check_periods(spans(valid=valid, test=test))) == expected


def test_windows_that_reach_into_another_period():
    times = make_source()["time"].values
    bounds = spans()
    clean = plan_windows(times, period=bounds["train"], history=2, horizon=2, step=STEP)
    by_first_step = np.flatnonzero(times <= bounds["train"][1].to_datetime64())
    cut = {
        name: times[np.unique((starts[:, None] + np.arange(4)).ravel())]
        for name, starts in (("clean", clean), ("leaky", by_first_step))
    }
    assert rules(leaks.check_windows({"train": cut["clean"]}, bounds)) == set()
    [finding] = leaks.check_windows({"train": cut["leaky"]}, bounds)
    assert finding.rule == "windows-cross-periods"
    assert "into 'valid'" in finding.what
    assert "3 steps outside, the first at 2001-02-16 00:00:00" in finding.value


def test_validation_windows_whose_history_was_trained_on():
    times = make_source()["time"].values
    bounds = spans()
    first = int(np.flatnonzero(times == np.datetime64("2001-02-16T00"))[0])
    assert rules(leaks.check_windows({"valid": times[first : first + 9]}, bounds)) == set()
    [finding] = leaks.check_windows({"valid": times[first - 1 : first + 9]}, bounds)
    assert "into 'train'" in finding.what


def task_findings(*, statistics=None, reference=None, train=None, valid=None):
    """`check_task` for a clean task, or with a part of it fitted to other periods."""
    config = make_config()
    cube = plan_cube(make_source(), config.data).cube
    bounds = config.data.periods.spans
    times = cube["time"].values
    places = {
        name: plan_windows(times, period=period, history=2, horizon=2, step=STEP)
        for name, period in (
            ("train", train or bounds["train"]),
            ("valid", valid or spans()["valid"]),
        )
    }
    return audits.check_task(
        config,
        times,
        statistics=compute_statistics(
            cube, channels=config.data.state, train=statistics or bounds["train"]
        ),
        climatology=period_of(
            climatology(cube, reference or bounds["train"], channels=config.data.state)
        ),
        **places,
    )


ALL = (pd.Timestamp("2001-01-01"), pd.Timestamp("2001-04-05T18"))


def test_a_clean_task_has_no_findings():
    assert task_findings() == []


def test_statistics_and_masks_over_all_years():
    findings = task_findings(statistics=ALL)
    assert rules(findings) == {"fitted-outside-training"}
    assert {f.where for f in findings} == {"statistics", "masks of missing cells"}


def test_climatology_over_the_test_period():
    [finding] = task_findings(reference=spans()["test"])
    assert finding.rule == "fitted-outside-training"
    assert finding.where == "climatology"
    assert "2001-03-11" in finding.value


def test_training_windows_from_the_validation_period():
    assert "windows-cross-periods" in rules(task_findings(train=ALL))


@pytest.mark.parametrize("period", ["test", "train"])
def test_a_checkpoint_chosen_by_another_period(period):
    findings = task_findings(valid=spans()[period])
    assert "checkpoint-choice" in rules(findings)
    [choice] = [f for f in findings if f.rule == "checkpoint-choice"]
    assert choice.where == f"data.periods.{period}"


def provenance(**replaced):
    periods = PERIODS | {k: v for k, v in replaced.items() if k in PERIODS}
    seen = {
        "train": ["2001-01-01", "2001-02-15"],
        "valid": ["2001-02-16", "2001-03-10"],
        "statistics": ["2001-01-01", "2001-02-15"],
        "climatology": ["2001-01-01", "2001-02-15"],
    }
    return {"config": {"data": {"periods": periods}}, "seen": seen | replaced.get("seen", {})}


INITS = np.array(["2001-03-11T00", "2001-03-12T00"], dtype="datetime64[ns]")
LEADS = np.arange(1, 5) * STEP


def test_scores_of_unseen_times_are_clean():
    assert leaks.check_scoring(provenance(), INITS, LEADS, climatology=spans()["train"]) == []


@pytest.mark.parametrize(
    ("made", "inits", "options", "rule"),
    [
        (provenance(), INITS - np.timedelta64(20, "D"), {}, "scored-on-seen"),
        (provenance(), INITS - np.timedelta64(60, "D"), {}, "scored-on-seen"),
        (provenance(), INITS - np.timedelta64(12, "h"), {}, "scored-on-seen"),
        (provenance(valid=PERIODS["test"]), INITS, {}, "periods-overlap"),
        (provenance(valid=PERIODS["test"]), INITS, {}, "scored-on-seen"),
        (provenance(seen={"train": ["2001-01-01", "2001-03-20"]}), INITS, {}, "scored-on-seen"),
        (
            provenance(seen={"statistics": ["2001-01-01", "2001-04-05"]}),
            INITS,
            {},
            "fitted-outside-training",
        ),
        (provenance(seen={"valid": PERIODS["test"]}), INITS, {}, "checkpoint-choice"),
        (provenance(), INITS, {"climatology": spans()["test"]}, "climatology-of-scored-times"),
    ],
    ids=[
        "validated on",
        "trained on",
        "first leads validated on",
        "validation = test",
        "validation = test, scored",
        "trained on more than the run file says",
        "statistics over all years",
        "chosen by the test period",
        "climatology from the scored split",
    ],
)
def test_scores_that_say_nothing(made, inits, options, rule):
    assert rule in rules(leaks.check_scoring(made, inits, LEADS, **options))


def test_a_provenance_without_periods_is_refused():
    with pytest.raises(DataError, match="names no periods"):
        leaks.check_scoring({"config": {}}, INITS, LEADS)


def forcing_rules(names, **options):
    times = make_source()["time"].values[:5]
    return rules(
        leaks.check_forcings(names, times, np.array([45.0, 0]), np.array([0.0, 90]), **options)
    )


def test_forcings_that_read_the_future():
    assert forcing_rules(["season", "cos_zenith", "day"], observed=["t2m"]) == set()
    assert forcing_rules(["season", "t2m"], observed=["t2m"]) == {"forcing-reads-future"}

    def smoothed(names, times, latitude, longitude):
        fields = forcing_fields(names, times, latitude, longitude)
        return (fields + np.roll(fields, -1, axis=0)) / 2  # half of it is of the next step

    assert forcing_rules(["cos_zenith"], fields=smoothed) == {"forcing-reads-future"}


# Times.


def test_times_twice_and_out_of_order():
    times = make_source()["time"].values[:4]
    assert rules(audits.check_times(times, "time")) == set()
    assert rules(audits.check_times(times[[0, 1, 1, 2]], "time")) == {"times-duplicate"}
    assert rules(audits.check_times(times[[0, 2, 1, 3]], "time")) == {"times-unsorted"}
    undefined = np.array(["2001-01-01", "NaT"], dtype="datetime64[ns]")
    assert rules(audits.check_times(undefined, "time")) == {"times-undefined"}


def test_the_audit_looks_at_the_times_of_the_plan_itself():
    config = make_config()
    plan = plan_cube(make_source(), config.data)
    order = np.r_[0, 1, 1, 2 : plan.times.values.size]
    leaky = Selection(plan.times.indices[order], plan.times.values[order])
    assert "times-duplicate" in {
        f.rule for f in audits.audit(config, dataclasses.replace(plan, times=leaky)).findings
    }


def test_gaps_are_noted():
    times = make_source()["time"].values
    step = make_config().data.step
    assert rules(chunking.check_gaps(times, step)) == set()
    [gap] = chunking.check_gaps(np.delete(times, [5, 6]), step)
    assert gap.value.startswith("2 steps in 1 gaps")


# Values.


def labelled(name, values, units):
    return {name: (("time", "latitude", "longitude"), values.astype("float32"), {"units": units})}


@pytest.mark.parametrize(
    ("name", "change", "label", "meant"),
    [
        ("msl", lambda v: v / 100, "Pa", "hPa"),
        ("msl", lambda v: v, "hPa", "Pa"),
        ("t2m", lambda v: v - 273.15, "K", "degC"),
        ("t2m", lambda v: v, "degC", "K"),
    ],
)
def test_units_that_contradict_the_values(name, change, label, meant):
    clean = make_source()
    values = clean[name].values
    config = make_config()
    plan = plan_cube(make_source(**labelled(name, change(values), label)), config.data)
    [finding] = audits.audit(config, plan).findings
    assert finding.rule == "units-contradict-values"
    assert f"units: {meant}" in finding.fix
    twin = make_source(**labelled(name, change(values), meant))
    assert found(twin) == set()


def test_heights_labelled_as_geopotential():
    values = 5500 + 100 * np.random.default_rng(1).standard_normal((380, 8, 16))
    config = make_config(state=["t2m", "z500"])
    for units, expected in (("m2 s-2", {"units-contradict-values"}), ("gpm", set())):
        source = make_source(**labelled("z500", values, units))
        source["z500"].attrs["standard_name"] = "geopotential_height" if units == "gpm" else ""
        assert found(source, config) == expected, units


def test_the_standard_atmosphere():
    """Heights of the ICAO standard atmosphere: 5574 m at 500 hPa, 1457 m at 850, 20576 m at 50."""
    assert plausibility.standard_height(500) == pytest.approx(5574, abs=2)
    assert plausibility.standard_height(850) == pytest.approx(1457, abs=2)
    assert plausibility.standard_height(50) == pytest.approx(20576, abs=10)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda v: np.full_like(v, 285), "channel-constant"),
        (lambda v: np.broadcast_to(v[:1], v.shape), "channel-constant"),
        (lambda v: np.where(np.arange(16) < 9, np.nan, v), "channel-mostly-missing"),
        (lambda v: np.full_like(v, np.nan), "channel-mostly-missing"),
        (lambda v: np.where(np.arange(16) == 3, np.inf, v), "channel-infinite"),
        (lambda v: np.where(np.arange(16) < 7, np.nan, v), None),
    ],
    ids=["one value", "one field", "9 of 16 missing", "all missing", "infinite", "7 of 16: clean"],
)
def test_channels_without_values_or_variation(change, rule):
    values = change(make_source()["t2m"].values)
    assert found(make_source(**labelled("t2m", values, "K"))) == ({rule} if rule else set())


def test_a_target_that_is_a_forcing_already():
    source = make_source()
    times, lat, lon = (source[n].values for n in ("time", "latitude", "longitude"))
    sun = 280 + 10 * forcing_fields(["cos_zenith"], times, lat, lon)[:, 0]
    twin = sun + np.random.default_rng(0).standard_normal(sun.shape)
    for values, expected in ((sun, {"target-is-known"}), (twin, set())):
        source = make_source(**labelled("t2m", values, "K"))
        assert found(source, make_config(forcing=["cos_zenith"])) == expected
    assert found(source, make_config()) == set()


# Reading and dividing.


def test_uneven_coarsening():
    latitude, longitude = np.linspace(88, -88, 12), np.arange(12) * 30.0
    assert rules(chunking.check_coarsening(latitude, longitude, 4)) == set()
    [finding] = chunking.check_coarsening(latitude[:-1], longitude, 4)
    assert finding.rule == "coarsening-uneven"
    assert finding.value == "11 latitude rows, blocks of 4: 3 left over"
    [pole] = chunking.check_coarsening(np.linspace(90, -75, 12), longitude, 4)
    assert "cells are half as high" in pole.what
    assert rules(chunking.check_coarsening(np.linspace(90, -75, 12), longitude, 1)) == set()


def test_chunks_that_are_read_in_vain():
    region = {"latitude": [80, 30], "longitude": [0, 80]}  # 3 of 8 rows, 4 of 16 columns
    source = make_source()
    config = make_config(region=region)
    result = audits.audit(config, plan_cube(source, config.data))
    chunks = [f for f in result.findings if f.rule == "chunks-in-vain"]
    assert [f.value for f in chunks] == [
        "10.7 times as much: 8 of which 3 along latitude, 16 of which 4 along longitude"
    ]
    assert "'t2m', 'msl'" in chunks[0].what
    assert found(source.chunk({"latitude": 3, "longitude": 4}), config) == set()
    thinned = make_config(step="1d")
    assert found(source, thinned) == {"chunks-in-vain"}
    assert found(source.chunk({"time": 1}), thinned) == set()


def test_steps_that_do_not_divide():
    times = make_source()["time"].values
    for data, forecast, number in (
        ({}, "24h", 0),
        ({}, "9h", 1),
        ({"step": "9h"}, "9h", 2),  # neither the day nor the source's 6 h
        ({"step": "2d"}, "2d", 0),
    ):
        config = make_config(**data)
        changed = config.forecast.model_copy(
            update={"every": pd.Timedelta(forecast.replace("d", "D")).to_pytimedelta()}
        )
        config = config.model_copy(update={"forecast": changed})
        findings = list(chunking.check_steps(config, times))
        assert [f.rule for f in findings] == ["steps-do-not-divide"] * number, (data, forecast)


def test_a_training_set_too_short_for_the_network():
    assert found(parameters=10_000) == set()
    assert found(parameters=10_000_000) == {"training-too-short"}


def test_periods_without_windows():
    short = make_config(periods=PERIODS | {"valid": ["2001-02-16", "2001-02-16T12:00"]})
    assert found(config=short) == {"period-without-windows"}
    elsewhere = {n: [d.replace("2001", "1971") for d in span] for n, span in PERIODS.items()}
    assert "periods-without-data" in found(config=make_config(periods=elsewhere))
    few = make_config(periods=PERIODS | {"train": ["2001-01-01", "2001-01-02"]})
    assert found(config=few) == {"fewer-windows-than-a-batch"}


# The whole way.


def test_the_digest_knows_values_times_and_units():
    def digest(source):
        config = make_config()
        return audits.audit(config, plan_cube(source, config.data)).digest

    clean = make_source()
    assert digest(clean) == digest(make_source())
    assert digest(clean + 0.5) != digest(clean)
    later = clean.assign_coords(time=clean["time"] + np.timedelta64(1, "D"))
    assert digest(later) != digest(clean)


def test_the_sample_shrinks_where_chunks_are_large(monkeypatch):
    config = make_config()
    plan = plan_cube(make_source(), config.data)
    wanted = np.arange(plan.times.values.size)
    assert audits.sample_positions(plan, wanted).size == audits.SAMPLE_STEPS
    monkeypatch.setattr(audits, "SAMPLE_BYTES", 1)
    assert audits.sample_positions(plan, wanted).size == audits.LEAST_STEPS


def test_checking_a_run_is_cheap(small_run):
    config = small_run()
    check_run(config)
    began = time.process_time()
    result = check_run(config)
    assert time.process_time() - began < 5  # seconds of CPU; under 1 on an idle machine
    assert result.passed, result.findings


def test_a_source_that_does_not_fit_is_a_finding(small_run, tmp_path):
    [finding] = check_run(small_run("data.source=atmosphre")).findings
    assert finding.rule == "source-does-not-fit"
    assert "Did you mean 'atmosphere'?" in finding.what
    source = make_source()
    source.isel(time=[0, 2, 1, *range(3, 380)]).to_zarr(tmp_path / "shuffled.zarr")
    (tmp_path / "c.yaml").write_text(
        "sources:\n  s: {driver: zarr, args: {urlpath: '{{ CATALOG_DIR }}/shuffled.zarr'}}\n"
    )
    config = make_config(catalog=str(tmp_path / "c.yaml"), source="s")
    assert {f.rule for f in check_run(config).findings} == {
        "times-unsorted",
        "source-does-not-fit",
    }


def test_checkpoint_and_forecast_carry_the_verdict(trained, tmp_path):
    recorded = trained.provenance["audit"]
    assert recorded["passed"]
    assert recorded["digest"] == check_run(trained.config).digest
    assert trained.provenance["seen"]["train"] == ["2001-01-01 00:00:00", "2001-02-15 18:00:00"]
    assert trained.provenance["seen"]["valid"][0] >= "2001-02-16"
    forecast_run(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]))
    attributes = open_forecasts(tmp_path / "f.zarr").attrs
    assert json.loads(attributes["climlstm_provenance"])["audit"] == recorded


def test_scores_on_trained_times_are_refused_unless_allowed(trained, tmp_path, caplog):
    store = tmp_path / "seen.zarr"
    forecast_run(trained, store, init_times=parse_times(["2001-01-10", "2001-01-20"]), steps=2)
    forecasts = open_forecasts(store)
    with pytest.raises(DataError, match=r"(?s)trained on .*4 of 4 valid times.*--allow-seen"):
        evaluate_run(forecasts)
    assert len(evaluate_run(forecasts, allow_seen=True).scores)
    assert "says nothing of skill" in caplog.text
    test_period = tmp_path / "unseen.zarr"
    forecast_run(trained, test_period, init_times=parse_times(["2001-03-12"]), steps=2)
    assert len(evaluate_run(open_forecasts(test_period)).scores)


def test_training_refuses_what_the_audit_finds(weather, small_run, tmp_path):
    from climlstm.training.loop import train

    stored = xr.open_zarr(weather / "atmosphere.zarr", decode_timedelta=False).load()
    name = next(n for n, v in stored.items() if v.attrs.get("units") == "Pa")
    spoilt = stored.assign({name: (stored[name] / 100).assign_attrs(stored[name].attrs)})
    for variable in spoilt.variables.values():
        variable.encoding = {}
    spoilt.to_zarr(tmp_path / "atmosphere.zarr")
    catalog = (weather / "catalog.yaml").read_text()
    (tmp_path / "spoilt.yaml").write_text(catalog)
    config = small_run(f"data.catalog={tmp_path}/spoilt.yaml")
    with pytest.raises(DataError, match=r"units-contradict-values"):
        train(config)


def test_a_climatology_of_the_scored_period_is_caught_when_forecasts_are_scored(trained, tmp_path):
    forecast_run(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=2)
    forecasts = open_forecasts(tmp_path / "f.zarr")
    cube, state = open_cube(trained.config.data), trained.config.data.state
    bounds = trained.config.data.periods.bounds
    leaky = climatology(cube, bounds("test"), channels=state)
    with pytest.raises(DataError, match="climatology that scores compare with was taken from the"):
        evaluate_run(forecasts, normal=leaky)
    assert rules(audit_scoring(forecasts, leaky).findings) == {"climatology-of-scored-times"}
    clean = climatology(cube, bounds("train"), channels=state)
    assert len(evaluate_run(forecasts, normal=clean).scores)
    assert audit_scoring(forecasts, clean).passed
    assert audit_scoring(forecasts).digest == trained.provenance["audit"]["digest"]


def test_the_verdict_goes_with_the_scores(trained, tmp_path):
    forecast_run(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=2)
    arguments = ["evaluate", str(tmp_path / "f.zarr"), "--out", str(tmp_path / "scores")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "passed: 0 errors" in done.output
    verdict = json.loads((tmp_path / "scores" / "audit.json").read_text())
    assert verdict["passed"]
    assert verdict["digest"] == trained.provenance["audit"]["digest"]


def test_every_rule_has_its_test():
    """Each rule that the audit knows is named by a test of this file or of test_cost.py."""
    source = Path(audits.__file__).parent
    modules = ("audit.py", "leaks.py", "plausibility.py", "chunking.py", "cost.py")
    known = {
        rule
        for module in modules
        for rule in re.findall(
            r'Finding\(\s*"([a-z-]+)",', (source / module).read_text(encoding="utf-8")
        )
    }
    folder = Path(__file__).parent
    tests = "".join((folder / n).read_text() for n in ("test_audit.py", "test_cost.py"))
    tests += (folder / "test_lineage.py").read_text()
    assert len(known) > 15
    assert {rule for rule in known if rule not in tests} == set()
