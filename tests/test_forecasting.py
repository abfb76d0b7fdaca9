"""Forecast stores: right values, other people's layout, and interruptions."""

import importlib
import re

import numpy as np
import pytest
import torch
import xarray as xr

from climlstm import forecasting, plugins, runs
from climlstm.errors import DataError
from climlstm.evaluation.cases import orient
from climlstm.evaluation.evaluate import evaluate
from climlstm.forecasting import open_forecasts, write_forecasts
from climlstm.forecasting import store as forecast_store
from climlstm.model.forecaster import Forecaster
from climlstm.model.saving import read_forecaster
from climlstm.runs import open_cube, parse_times


@pytest.fixture(scope="module")
def store(trained, tmp_path_factory):
    store = tmp_path_factory.mktemp("forecasts") / "forecasts.zarr"
    runs.forecast(trained, store)
    return store


def test_plain_xarray_reads_weatherbench_layout(store):
    stored = xr.open_zarr(store, decode_timedelta=True)
    assert set(stored.dims) == {
        "time", "prediction_timedelta", "level", "latitude", "longitude",
    }  # fmt: skip
    assert {"2m_temperature", "temperature", "geopotential", "mean_sea_level_pressure"} & set(
        stored.data_vars
    ) == {"temperature", "geopotential", "mean_sea_level_pressure"}
    assert stored["prediction_timedelta"].dtype == "timedelta64[ns]"
    assert stored["prediction_timedelta"].values[0] == np.timedelta64(6, "h")
    assert stored["mean_sea_level_pressure"].attrs["units"] == "Pa"
    assert not stored["mean_sea_level_pressure"].isnull().any()


def test_opened_again_the_channels_are_those_that_were_forecast(store, trained):
    forecasts = open_forecasts(store)
    assert set(forecasts.data_vars) == set(trained.config.data.state)
    assert forecasts["z500"].dims == ("init_time", "lead_time", "latitude", "longitude")
    assert forecasts.sizes["lead_time"] == 4
    assert not forecasts.isnull().any().to_array().any()


def test_a_forecast_is_what_the_network_says_of_the_cubes_states(store, trained):
    forecasts = open_forecasts(store)
    forecaster, _ = read_forecaster(trained.checkpoint)
    cube = open_cube(trained.config.data)
    init = forecasts["init_time"].values[3]
    [one] = forecasting.forecast_batches(forecaster, cube, init_times=np.array([init]), steps=4)
    xr.testing.assert_allclose(
        one.isel(init_time=0), forecasts.sel(init_time=init), rtol=1e-4, atol=1e-3
    )
    step = one["msl"].isel(init_time=0, lead_time=0) - cube["msl"].sel(time=init)
    assert 10 < float(abs(step).max()) < 3000  # Pa in six hours: neither persistence nor nonsense


def test_an_interrupted_forecast_goes_on_where_it_was(trained, tmp_path, monkeypatch, store):
    out = tmp_path / "again.zarr"
    write = forecast_store._write_region
    written = []

    def interrupted(*given):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(write(*given))

    monkeypatch.setattr(forecast_store, "_write_region", interrupted)
    config = trained.config
    small = config.model_copy(
        update={"forecast": config.forecast.model_copy(update={"batch_size": 8})}
    )
    trained_small = type(trained)(trained.checkpoint, small, trained.provenance)
    with pytest.raises(KeyboardInterrupt):
        runs.forecast(trained_small, out)
    assert not out.exists()
    with pytest.raises(DataError, match="8 initialisations have been written"):
        open_forecasts(out)
    monkeypatch.setattr(forecast_store, "_write_region", write)
    runs.forecast(trained_small, out)
    xr.testing.assert_allclose(open_forecasts(out), open_forecasts(store), rtol=1e-4, atol=1e-3)
    assert not list(out.glob(".*json")) or not (out / ".request.json").exists()


def test_the_network_is_read_once(trained, tmp_path, monkeypatch):
    read, made = Forecaster.from_state, []

    def counted(*arguments, **options):
        made.append(options["precision"])
        return read(*arguments, **options)

    monkeypatch.setattr(Forecaster, "from_state", counted)
    runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-03-12"]), steps=1)
    assert made == [torch.float32]


def test_an_existing_store_is_not_overwritten(trained, store):
    with pytest.raises(DataError, match="exists already"):
        runs.forecast(trained, store)


def test_an_initial_time_without_history_is_named(trained, tmp_path):
    with pytest.raises(DataError, match="no data at 2000-12-31T18") as error:
        runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times(["2001-01-01T00"]))
    assert not (tmp_path / "f.zarr").exists()
    possible = re.search(r"nearest possible start is (\S+)\.$", str(error.value))[1]
    assert runs.forecast(trained, tmp_path / "f.zarr", init_times=parse_times([possible])) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.drop_vars("msl"), "needs the channel 'msl'"),
        (lambda c: c.assign(msl=c["msl"].assign_attrs(units="hPa")), "has it in 'hPa'"),
        (lambda c: c.isel(latitude=slice(1, None)), "but the cube has 31 × 64 cells"),
        (
            lambda c: c.assign_coords(longitude=c["longitude"] - 180),
            "degrees north, -180 to 174",
        ),
    ],
)
def test_a_cube_that_does_not_fit_is_refused(trained, tmp_path, change, says):
    forecaster, provenance = read_forecaster(trained.checkpoint)
    with pytest.raises(DataError, match=says):
        write_forecasts(
            tmp_path / "f.zarr",
            forecaster,
            change(open_cube(trained.config.data)),
            init_times=parse_times(["2001-03-12T00"]),
            steps=2,
            provenance=provenance,
        )


def foreign(tmp_path, member=None, leads=None, **attrs):
    """A store of another model: four starts, leads of 6 to 24 h, the truth plus 1 K a day."""
    times = np.datetime64("2020-01-01", "ns") + np.arange(4) * np.timedelta64(1, "D")
    days = np.arange(1, 5) / 4
    shape = (4, *([3] if member else []), 4, 2, 3)
    values = np.broadcast_to(280 + days[:, None, None], shape).astype("f4")
    dims = ("time", *([member] if member else []), "prediction_timedelta", "latitude", "longitude")
    leads = HOURS * np.timedelta64(1, "h") if leads is None else leads
    dataset = xr.Dataset(
        {"2m_temperature": (dims, values, {"units": "K"})},
        {
            "time": times,
            "prediction_timedelta": ("prediction_timedelta", leads, attrs),
            "latitude": [30.0, -30.0],
            "longitude": [0.0, 120.0, 240.0],
        },
    )
    dataset.to_zarr(tmp_path / "foreign.zarr", zarr_format=2)
    return tmp_path / "foreign.zarr"


HOURS = np.arange(6, 25, 6)


@pytest.mark.parametrize(
    ("leads", "attrs"),
    [
        (HOURS * np.timedelta64(1, "h"), {}),
        (HOURS, {}),
        (HOURS.astype("f4"), {}),
        (HOURS, {"units": "hours"}),
        (HOURS, {"units": "h"}),
        (HOURS * 60, {"units": "min"}),
        (HOURS * 3600, {"units": "seconds"}),
        (HOURS / 24, {"units": "d"}),
    ],
)
def test_lead_times_of_other_models_are_durations(tmp_path, leads, attrs):
    opened = open_forecasts(foreign(tmp_path, leads=leads, **attrs))
    assert (opened["lead_time"].values == HOURS * np.timedelta64(1, "h")).all()


def test_other_names_of_the_dimensions_are_known(tmp_path):
    stored = xr.open_zarr(foreign(tmp_path), decode_timedelta=True)
    renamed = stored.rename(time="forecast_reference_time", prediction_timedelta="step")
    renamed = renamed.rename(latitude="lat", longitude="lon")
    renamed.drop_encoding().to_zarr(tmp_path / "other.zarr", zarr_format=2)
    wanted, found = (open_forecasts(tmp_path / f"{name}.zarr") for name in ("foreign", "other"))
    xr.testing.assert_equal(wanted, found)


def test_hours_without_a_unit_are_told(tmp_path, caplog):
    open_forecasts(foreign(tmp_path, leads=HOURS))
    assert "lead times have no unit; they are taken for hours, 6, 12, 18 ... 24" in caplog.text


def test_lead_times_that_cannot_be_hours_are_refused_and_the_advice_works(tmp_path):
    store = foreign(tmp_path, leads=HOURS * 3_600_000)
    with pytest.raises(DataError, match=r"numbers without a unit, .*expected durations") as refused:
        open_forecasts(store)
    advice = re.search(r"forecasts\.assign_coords\(.*\)\)", str(refused.value))[0]
    forecasts = xr.open_zarr(store)
    anew = eval(advice.replace("'m'", "'ms'"), {"forecasts": forecasts, "np": np})
    anew.to_zarr(tmp_path / "anew.zarr", zarr_format=2)
    assert open_forecasts(tmp_path / "anew.zarr")["lead_time"].values[0] == np.timedelta64(6, "h")
    with pytest.raises(DataError, match="of the unit 'metres'"):
        open_forecasts(foreign(tmp_path / "other", leads=HOURS, units="metres"))


@pytest.mark.parametrize("name", ["number", "sample", "member", "ensemble_member", "realization"])
def test_members_of_other_models_are_recognised(tmp_path, name):
    opened = open_forecasts(foreign(tmp_path, member=name))
    assert set(opened["t2m"].dims) == {
        "init_time", "realization", "lead_time", "latitude", "longitude",
    }  # fmt: skip
    times = np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(6, "h")
    cube = opened["t2m"].isel(init_time=0, lead_time=0, realization=0, drop=True)
    cube = (xr.zeros_like(cube) + 280).expand_dims(time=times).to_dataset()
    cube["t2m"].attrs["units"] = "K"
    evaluators = {name: plugins.create("evaluators", name, {}) for name in ("rmse", "crps")}
    for forecasts in (opened, opened.rename(realization=name) if name != "realization" else opened):
        scores = evaluate(
            forecasts, cube, evaluators=evaluators, climatology=None, baselines={}
        ).scores
        crps = scores[scores["metric"] == "crps"]["value"].tolist()
        assert crps == pytest.approx([0.25, 0.5, 0.75, 1.0])  # three members alike


def test_a_dimension_that_is_not_known_is_refused_and_the_advice_works(tmp_path):
    forecasts = open_forecasts(foreign(tmp_path, member="scenario"))
    with pytest.raises(DataError, match=r"the dimension 'scenario' \(3\) is not known") as refused:
        orient(forecasts)
    for advice in re.findall(r"forecast\.\w+\(.*?\)", str(refused.value)):
        assert {"init_time", "lead_time"} <= set(orient(eval(advice, {"forecast": forecasts})).dims)
    assert orient(forecasts.isel(scenario=[0]))["t2m"].ndim == 4


def test_starts_whose_leads_end_after_the_data_are_told_and_can_be_left_out(
    trained, tmp_path, caplog
):
    """The data end at 2001-03-31T18: with four leads of 6 h, 2001-03-31 is a start too many."""
    end = open_cube(trained.config.data)["time"].values[-1]
    inits = np.array([end - np.timedelta64(24, "h"), end - np.timedelta64(18, "h"), end])
    given = {"init_times": inits, "steps": 4}
    assert runs.forecast(trained, tmp_path / "all.zarr", **given) == 3
    assert "2 of 3 initialisations, the first at 2001-04-10 00:00" in caplog.text
    option = re.search(r"\((\w+)=True\)", caplog.text)[1]
    assert runs.forecast(trained, tmp_path / "some.zarr", **given, **{option: True}) == 1
    assert open_forecasts(tmp_path / "some.zarr").init_time.values.tolist() == [inits[0].item()]
    with pytest.raises(DataError, match="None of the 1 initialisations"):
        runs.forecast(trained, tmp_path / "none.zarr", init_times=inits[2:], verifiable=True)


def test_what_is_no_forecast_is_refused(weather, tmp_path):
    with pytest.raises(DataError, match="is no forecast"):
        open_forecasts(weather / "atmosphere.zarr")
    with pytest.raises(DataError, match="There is no forecast store"):
        open_forecasts(tmp_path / "nothing.zarr")


def test_the_latest_start_is_the_newest_of_the_source(trained, weather, tmp_path):
    newest = xr.open_zarr(weather / "atmosphere.zarr")["time"].values[-1]
    forecasts = runs.forecast(trained, init_times=["latest"], steps=2)
    assert list(forecasts["init_time"].values) == [newest]


def test_a_source_without_the_test_period_is_forecast_from_its_newest_time(
    trained, weather, tmp_path
):
    early = xr.open_zarr(weather / "atmosphere.zarr").isel(time=slice(0, 8))
    early.drop_encoding().to_zarr(tmp_path / "early.zarr", consolidated=False)
    (tmp_path / "catalog.yaml").write_text(
        "sources: {early: {driver: zarr, args: {urlpath: '{{ CATALOG_DIR }}/early.zarr'}}}"
    )
    other = {"catalog": str(tmp_path / "catalog.yaml"), "source": "early"}
    forecasts = runs.forecast(trained, steps=2, **other)
    assert list(forecasts["init_time"].values) == [early["time"].values[-1]]


def test_a_run_file_is_parsed_and_its_cube_planned_once_a_command(trained, tmp_path, monkeypatch):
    seen = []

    def count(module, name):
        made = getattr(importlib.import_module(module), name)
        counting = lambda *args, **options: seen.append(name) or made(*args, **options)  # noqa: E731
        monkeypatch.setattr(f"{module}.{name}", counting)

    for module in ("climlstm.runs.trained", "climlstm.data.forecasts"):
        count(module, "parse_config")
    for module in ("climlstm.data.run_data", "climlstm.data.others"):
        count(module, "plan_cube")
    runs.forecast(trained.checkpoint, tmp_path / "f.zarr")
    assert sorted(seen) == ["parse_config", "plan_cube"]
    seen.clear()
    runs.evaluate(tmp_path / "f.zarr", evaluators=["rmse"], baselines=["linear"])
    assert sorted(seen) == ["parse_config", "plan_cube"]
