"""The example run files on real analyses: taken in, trained on, forecast, scored, drawn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from climlstm import runs
from climlstm.config import load_config
from climlstm.data.sources.catalog import open_source
from climlstm.forecasting import open_forecasts
from climlstm.grid import grid_of
from climlstm.plots import plot_field, plot_forecast, save
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


NATIVE = {
    "lost its rotated pole": (
        "cordex_rotated_pole/psl_EUR-11_MOHC-HadGEM2-ES_*_day_20110101-20201231.nc",
        ["data.periods.train=[2011-01-01, 2011-12-31]",
         "data.periods.valid=[2012-01-01, 2012-03-31]",
         "data.periods.test=[2012-04-01, 2012-06-30]"]),
    "rotated pole": ("cordex_rotated_pole/pr_NAM-22_*_day_20510101-20551231.nc",
                     ["data.periods.train=[2051-01-01, 2051-12-31]",
                      "data.periods.valid=[2052-01-01, 2052-03-31]",
                      "data.periods.test=[2052-04-01, 2052-06-30]"]),
    "ocean": ("cmip6_tos_curvilinear/tos_Omon_MPI-ESM1-2-LR_*_185001-186912.nc", []),
}  # fmt: skip
"""Real files on grids of their own that have a year or more, and settings beside init's."""

FEW = [
    *("training.epochs=1", "training.horizon=1", "training.threads=1", "training.batch_size=2"),
    *("model.history=1", "model.options={hidden: [4], blocks: 0}", "forecast.steps=1"),
    "training.precision=float32",
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", NATIVE)
def test_from_a_real_file_on_its_own_grid_to_a_map(kind, real_data, tmp_path):
    """init, check, a few steps of training, forecast, scores; and a map with each cell in place."""
    pytest.importorskip("cartopy")
    from climlstm.plots.fields import as_field
    from climlstm.plots.image import FieldImage
    from climlstm.plots.styles import look_of
    from tests.test_plots import colours_at

    pattern, settings = NATIVE[kind]
    [path] = (real_data / pattern).parent.glob((real_data / pattern).name)
    started = runs.init(str(path), tmp_path)
    config = load_config(started.run_file, [f"cluster.storage={tmp_path}/runs", *FEW, *settings])
    assert runs.check_run(config).passed
    trained = find_trained(runs.train(config, under_ray=False))
    runs.forecast(trained, tmp_path / "forecasts.zarr")
    forecasts, truth = open_forecasts(tmp_path / "forecasts.zarr"), open_cube(config.data)
    assert grid_of(forecasts).kind != "latlon"
    assert grid_of(forecasts).is_close(grid_of(truth), 1e-6)
    scores = runs.evaluate(forecasts).scores
    assert np.isfinite(scores.loc[scores["metric"] == "rmse", "value"]).all()
    channel = config.data.state[0]
    field = forecasts[channel].isel(init_time=0, lead_time=0)
    values = field.values.astype("float64")
    values[[0, -1]], values[:, [0, -1]] = np.nan, np.nan  # half of a cell there is off the map
    figure = plot_field(field, width=6, coastlines="none", shading="cells")
    save(figure, tmp_path / "map.png")
    [image] = [one for one in figure.axes[0].images if isinstance(one, FieldImage)]
    grid, known = grid_of(forecasts), np.isfinite(values)
    shown = look_of(as_field(field)).values(as_field(field))
    found, *_, inside = colours_at(figure.axes[0], grid.longitude[known], grid.latitude[known])
    wanted = image.cmap(image.norm(shown[known][inside]), bytes=True)[:, :3].astype(int)
    assert inside.mean() > 0.4  # a few cells a continent wide are not all on one map
    assert np.abs(found - wanted).max() <= 12
