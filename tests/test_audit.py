"""The audit: each rule catches its planted fault, and is silent on the clean twin."""

import dataclasses
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from climlstm import runs
from climlstm.audit import audit as audits
from climlstm.audit import chunking, sampling
from climlstm.cli import app
from climlstm.data.cube.cube import plan_cube
from climlstm.data.statistics.climatology import climatology
from climlstm.errors import DataError
from climlstm.forecasting import open_forecasts
from climlstm.grid.axes import AxisPoints
from climlstm.runs import audit_scoring, check_run, open_cube, parse_times
from tests.small_audits import make_config, make_source, rules


def test_a_clean_run_passes_and_says_what_was_read():
    config = make_config()
    result = audits.audit(config, plan_cube(make_source(), config.data), parameters=1000)
    assert result.findings == ()
    assert result.passed
    assert result.steps_read == sampling.SAMPLE_STEPS
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
    leaky = AxisPoints(plan.times.indices[order], plan.times.values[order])
    assert "times-duplicate" in {
        f.rule for f in audits.audit(config, dataclasses.replace(plan, times=leaky)).findings
    }


def test_gaps_are_noted():
    times = make_source()["time"].values
    step = make_config().data.step
    assert rules(chunking.check_gaps(times, step)) == set()
    [gap] = chunking.check_gaps(np.delete(times, [5, 6]), step)
    assert gap.value.startswith("2 steps in 1 gaps")


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
    assert sampling.sample_positions(plan, wanted).size == sampling.SAMPLE_STEPS
    monkeypatch.setattr(sampling, "SAMPLE_BYTES", 1)
    assert sampling.sample_positions(plan, wanted).size == sampling.LEAST_STEPS


def test_a_quick_check_is_cheap(small_run):
    config = small_run()
    check_run(config, quick=True)
    began = time.process_time()
    result = check_run(config, quick=True)
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
    runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]))
    attributes = open_forecasts(tmp_path / "f.zarr").attrs
    assert json.loads(attributes["climlstm_provenance"])["audit"] == recorded


def test_scores_on_trained_times_are_refused_unless_allowed(trained, tmp_path, caplog):
    store = tmp_path / "seen.zarr"
    runs.forecast(trained, store, init_times=parse_times(["2001-01-10", "2001-01-20"]), steps=2)
    forecasts = open_forecasts(store)
    with pytest.raises(DataError, match=r"(?s)trained on .*4 of 4 valid times.*--allow-seen"):
        runs.evaluate(forecasts)
    assert len(runs.evaluate(forecasts, allow_seen=True).scores)
    assert "says nothing of skill" in caplog.text
    test_period = tmp_path / "unseen.zarr"
    runs.forecast(trained, test_period, init_times=parse_times(["2001-03-12"]), steps=2)
    assert len(runs.evaluate(open_forecasts(test_period)).scores)


def test_training_refuses_what_the_audit_finds(weather, small_run, tmp_path):
    from climlstm.training.loop import run_training

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
        run_training(config)


def test_a_climatology_of_the_scored_period_is_caught_when_forecasts_are_scored(trained, tmp_path):
    runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=2)
    forecasts = open_forecasts(tmp_path / "f.zarr")
    cube, state = open_cube(trained.config.data), trained.config.data.state
    bounds = trained.config.data.periods.bounds
    leaky = climatology(cube, bounds("test"), channels=state)
    with pytest.raises(DataError, match="climatology that scores compare with was taken from the"):
        runs.evaluate(forecasts, climatology=leaky)
    assert rules(audit_scoring(forecasts, leaky).findings) == {"climatology-of-scored-times"}
    clean = climatology(cube, bounds("train"), channels=state)
    assert len(runs.evaluate(forecasts, climatology=clean).scores)
    assert audit_scoring(forecasts, clean).passed
    assert audit_scoring(forecasts).digest == trained.provenance["audit"]["digest"]


def test_the_verdict_goes_with_the_scores(trained, tmp_path):
    runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=2)
    arguments = ["evaluate", str(tmp_path / "f.zarr"), "--out", str(tmp_path / "scores")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "passed: 0 errors" in done.output
    verdict = json.loads((tmp_path / "scores" / "audit.json").read_text())
    assert verdict["passed"]
    assert verdict["digest"] == trained.provenance["audit"]["digest"]


def test_every_rule_has_its_test():
    """Each rule that the audit knows is named by a test."""
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
    tests = "".join(file.read_text("utf-8") for file in folder.glob("test_*.py"))
    assert len(known) > 15
    assert {rule for rule in known if rule not in tests} == set()
