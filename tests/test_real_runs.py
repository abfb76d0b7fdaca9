"""The example run files on real analyses: taken in, trained on, forecast, scored, drawn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from climlstm import runs
from climlstm.config import load_config
from climlstm.data.sources.catalog import open_source
from climlstm.forecasting import open_forecasts
from climlstm.plots import plot_forecast, save
from climlstm.runs import find_trained, open_cube

EXAMPLES = Path(__file__).parents[1] / "catalogs" / "examples"


def run_through(name, folder, *settings):
    """(forecasts, scores, truth) of an example, trained briefly in this process."""
    config = load_config(
        EXAMPLES / f"{name}.yaml",
        [f"cluster.storage={folder}/runs", "training.threads=1", *settings],
    )
    trained = find_trained(runs.train(config, under_ray=False))
    runs.forecast(trained, folder / "forecasts.zarr")
    forecasts = open_forecasts(folder / "forecasts.zarr")
    return forecasts, runs.evaluate(forecasts).scores, open_cube(config.data)


def value(scores, metric, variable, model, lead):
    chosen = scores[
        (scores["metric"] == metric)
        & (scores["variable"] == variable)
        & (scores["model"] == model)
        & (scores["lead_time"] == np.timedelta64(lead, "h"))
    ]
    return chosen["value"].item()


def test_the_storm_of_january_1996(real_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CLIMLSTM_REAL_DATA", str(real_data))
    forecasts, scores, truth = run_through(
        "storm_jan1996", tmp_path, "training.epochs=6", "model.options.hidden=[16]"
    )
    assert "3 of 64 steps lack values" in caplog.text
    assert value(scores, "rmse", "msl", "convlstm", 6) < value(
        scores, "rmse", "msl", "persistence", 6
    )
    missing = forecasts["msl"].isel(init_time=0, lead_time=0).isnull()
    assert int(missing.sum()) == 224  # the corners that never have a value
    valid = truth["msl"].sel(time="1996-01-20T00", latitude=60, longitude=-67.5)
    assert float(valid) == pytest.approx(97100, abs=100)
    picture = tmp_path / "storm.png"
    save(
        plot_forecast(forecasts, "msl", truth=truth, init_time="1996-01-18T00", lead_time="48h"),
        picture,
    )
    assert picture.stat().st_size > 30_000


@pytest.mark.skipif(find_spec("cfgrib") is None, reason="needs climlstm[grib]")
def test_a_month_of_grib(real_data, tmp_path, monkeypatch):
    monkeypatch.setenv("CLIMLSTM_REAL_DATA", str(real_data))
    forecasts, scores, _ = run_through(
        "era5_t2m_uk_2019_03",
        tmp_path,
        "training.epochs=1",
        "data.periods.train=[2019-03-01, 2019-03-10]",
        "forecast.steps=6",
        "training.horizon=2",
        "model.options.hidden=[8]",
        "training.learning_rate=0.003",
    )
    assert forecasts["t2m"].attrs["units"] == "K"
    assert 250 < float(forecasts["t2m"].min()) < float(forecasts["t2m"].max()) < 310
    assert value(scores, "rmse", "t2m", "convlstm", 3) < value(
        scores, "rmse", "t2m", "persistence", 3
    )
    source = open_source(str(EXAMPLES / "real.yaml"), "era5_t2m_uk_2019_03")
    assert source.sizes["time"] == 744
