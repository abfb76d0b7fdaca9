"""Ensembles from end to end: noise, perturbations, training by CRPS, stores and scores."""

import dataclasses
import re
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

from climlstm import runs
from climlstm.cli.commands import app
from climlstm.config import load_config
from climlstm.data.windows.stream import Window
from climlstm.errors import ConfigError, DataError
from climlstm.forecasting import (
    Ensemble,
    Perturbations,
    ensemble_mean,
    forecast_batches,
    histories,
    open_forecasts,
)
from climlstm.grid import LatLon
from climlstm.model.forecaster import Forecaster
from climlstm.model.losses import CRPS
from climlstm.model.noise import draw_noise
from climlstm.model.spec import Spec
from climlstm.runs import evaluators_of, open_cube
from climlstm.steps import Step
from climlstm.training.members import predict

torch.set_num_threads(1)

CPU = torch.device("cpu")
INITS = np.array(["1959-12-31T18", "2020-01-01", "2020-01-02"], "datetime64[h]")
SPEC = Spec(
    channels=("t2m", "u10"),
    units=("K", "m s-1"),
    levels=(None, None),
    sign=(1, -1),
    forcing=("season",),
    static=(),
    step=Step.parse("6h"),
    grid=LatLon(np.array([67.5, 22.5, -22.5, -67.5]), np.arange(0.0, 360, 60)),
    history=2,
    options={"hidden": (3,)},
    noise=2,
)


def test_noise_of_a_member_depends_on_nothing_else():
    together = draw_noise((3, 5), np.repeat(INITS, 2), [0, 1] * 3, (4, 6), device=CPU)
    alone = draw_noise((3, 5), INITS[1:2].astype("datetime64[ns]"), [1], (4, 6), device=CPU)
    assert torch.equal(alone[0], together[3])
    assert len({tuple(field.flatten().tolist()) for field in together}) == 6
    other = draw_noise((3, 6), INITS[1:2], [1], (4, 6), device=CPU)
    assert not torch.equal(other[0], together[3])


def test_noise_is_standard_normal():
    noise = draw_noise((0,), np.repeat(INITS, 100), list(range(300)), (64,), device=CPU)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert abs(torch.corrcoef(noise[:8]) - torch.eye(8)).max() < 0.5


STATISTICS = {"mean": torch.zeros(2), "std": torch.ones(2), "tendency_std": torch.ones(2)}


def noisy_forecaster() -> Forecaster:
    torch.manual_seed(0)
    forecaster = Forecaster(SPEC, **STATISTICS)
    with torch.no_grad():
        for parameter in forecaster.parameters():
            parameter.normal_(std=0.3)
    return forecaster


def window() -> Window:
    generator = torch.Generator().manual_seed(1)
    history, target = torch.randn(2, 3, 2, 2, 4, 6, generator=generator)
    forcing = torch.randn(3, 3, 1, 4, 6, generator=generator)
    return Window(history, forcing, target, INITS)


def test_members_of_a_batch_are_those_of_its_parts():
    module = noisy_forecaster()
    given = {"horizon": 2, "members": 3, "seed": (0, 7)}
    whole = predict(module, module.spec, window(), **given)
    assert whole.shape == (3, 3, 2, 2, 4, 6)
    parts = [
        predict(module, module.spec, window(), part=part, **given)
        for part in (slice(0, 1), slice(1, 3))
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    assert (whole[0] - whole[1]).abs().mean() > 0.01


def test_noise_that_does_not_fit_is_refused():
    given = window()
    with pytest.raises(ConfigError, match="made for 2 fields of noise, but got 0"):
        noisy_forecaster()(given.history, given.forcing)


def test_a_network_learns_how_uncertain_the_next_state_is():
    """Truth: the last state plus noise of a known size, which members should then have, too."""
    scale = torch.tensor([0.3, 0.6])[:, None, None]
    spec = dataclasses.replace(SPEC, forcing=(), history=1)
    torch.manual_seed(0)
    module = Forecaster(spec, **STATISTICS)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(2)
    inits = np.arange(32).astype("datetime64[h]")
    for step in range(150):
        history, noise = torch.randn(2, 32, 1, 2, 4, 6, generator=generator)
        batch = Window(history, torch.zeros(32, 1, 0, 4, 6), history + scale * noise, inits)
        members = predict(module, spec, batch, horizon=1, members=2, seed=(step,))
        loss = CRPS()(members, batch.target, weight=torch.ones(2, 4, 6), channels=spec.channels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        many = predict(module, spec, batch, horizon=1, members=30, seed=(0,))
    spread = (many - history).std(dim=0).mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(spread, scale.flatten(), rtol=0.2, atol=0)


def record(times):
    """States that tell their own time: days since the first."""
    days = ((times - RECORD[0]) / np.timedelta64(1, "D")).astype("float32")
    return np.broadcast_to(days[:, None, None, None, None], (days.size, 1, 1, 1, 1))


RECORD = np.arange("2001-01-01", "2004-01-01", 6, dtype="datetime64[h]")


def test_perturbations_are_of_the_same_season_and_hour_and_days_apart():
    drawn = []

    def states(times):
        drawn.append(times)
        return record(times)

    init = np.datetime64("2010-01-05T06", "h")
    members = np.arange(200)
    perturbation = Perturbations(0.2, RECORD, states).draw(0, np.repeat(init, 200), members)
    first, second = drawn[0].reshape(2, 200)
    assert (abs(first - second) >= np.timedelta64(10, "D")).all()
    for times in (first, second):
        assert ((times - times.astype("datetime64[D]")) == np.timedelta64(6, "h")).all()
        day = (times - times.astype("datetime64[Y]")) / np.timedelta64(1, "D")
        assert ((day < 51) | (day > 365 - 42)).all()
    wanted = 0.2 * (record(first) - record(second)) / np.sqrt(2)
    np.testing.assert_allclose(perturbation, wanted, rtol=1e-5)
    assert abs(perturbation.mean()) < 0.1 * abs(perturbation).max()


def test_perturbations_have_the_share_of_the_variance_that_is_asked_for():
    def states(times):
        generator = np.random.default_rng(0)
        return generator.normal(0, 3, (times.size, 1, 1, 8, 8)).astype("float32")

    inits = np.repeat(RECORD[:1], 400)
    perturbation = Perturbations(0.1, RECORD, states).draw(0, inits, np.arange(400))
    assert perturbation.std() == pytest.approx(0.3, rel=0.02)


def test_a_record_without_two_states_apart_is_refused():
    few = Perturbations(0.1, RECORD[:20], record)
    with pytest.raises(DataError, match="none so far apart"):
        few.draw(0, RECORD[:1], np.array([0]))
    with pytest.raises(DataError, match="has 0 of them"):
        few.draw(0, np.array([np.datetime64("2001-07-01", "h")]), np.array([0]))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["model.noise=1"], "would teach the network to ignore its noise"),
        (["training.members=2"], "without noise all members are alike"),
        (["model.noise=1", "training.members=2"], "'mse', which is no loss of ensembles"),
    ],
)
def test_noise_members_and_loss_go_together(run_file, settings, says):
    with pytest.raises(ConfigError, match=says):
        load_config(run_file, settings)


@pytest.fixture(scope="module")
def store(noisy, tmp_path_factory):
    store = tmp_path_factory.mktemp("ensemble") / "forecasts.zarr"
    runs.forecast(noisy, store, members=3, seed=5)
    return store


def test_members_are_a_dimension_of_the_store(store, noisy):
    stored = xr.open_zarr(store, decode_timedelta=True)
    assert stored["geopotential"].dims == (
        "time", "realization", "prediction_timedelta", "level", "latitude", "longitude",
    )  # fmt: skip
    assert stored["realization"].attrs["standard_name"] == "realization"
    assert stored["geopotential"].encoding["chunks"][:2] == (1, 1)
    members = open_forecasts(store)
    assert members["z500"].dims[:3] == ("init_time", "realization", "lead_time")
    spread = members.std("realization", ddof=1).mean(["init_time", "latitude", "longitude"])
    for name, channel in spread.items():
        assert (channel > 0).all(), name
        assert channel[-1] > channel[0], name


def test_the_same_seed_gives_the_same_members_however_they_are_computed(store, noisy):
    forecasts = open_forecasts(store)
    from climlstm.model.saving import read_forecaster

    forecaster, _ = read_forecaster(noisy.checkpoint)
    inits = forecasts["init_time"].values[2:4]
    again, other = (
        next(forecast_batches(
            forecaster, open_cube(noisy.config.data), init_times=inits, steps=4, batch_size=2,
            ensemble=Ensemble(3, seed),
        ))
        for seed in (5, 6)
    )  # fmt: skip
    wanted = forecasts.sel(init_time=inits)
    xr.testing.assert_allclose(again, wanted, rtol=1e-4, atol=1e-2)
    assert abs(other["msl"] - wanted["msl"]).max() > 10


def test_an_ensemble_has_the_scores_of_one(store):
    evaluation = runs.evaluate(open_forecasts(store))
    own = evaluation.scores[evaluation.scores["model"] == "convlstm"]
    assert {"rmse", "acc", "crps", "spread", "spread_skill"} <= set(own["metric"])
    crps, mae = (own[(own["metric"] == metric)]["value"].to_numpy() for metric in ("crps", "mae"))
    assert (crps < mae).all()
    ranks = evaluation.tables["rank_histogram"]
    assert set(ranks["rank"]) == {0, 1, 2, 3}
    shares = ranks.groupby(["variable", "lead_time"], observed=True)["share"].sum()
    np.testing.assert_allclose(shares, 1)


@pytest.mark.slow
def test_reports_and_maps_show_the_mean_of_an_ensemble(store, noisy, tmp_path):
    pytest.importorskip("cartopy")
    from climlstm.report import with_spectra, write_report

    forecasts = open_forecasts(store).isel(init_time=slice(0, 3))
    mean = ensemble_mean(forecasts)
    assert mean.attrs == forecasts.attrs
    assert mean["z500"].attrs == forecasts["z500"].attrs
    np.testing.assert_allclose(mean["msl"], forecasts["msl"].mean("realization"), rtol=1e-6)
    config = noisy.config
    chosen = with_spectra(evaluators_of(config.evaluation, forecasts))
    evaluation = runs.evaluate(forecasts, evaluators=chosen)
    page = write_report(
        tmp_path / "report.html", forecasts, evaluation, open_cube(config.data),
        config=config, evaluators=chosen,
    )  # fmt: skip
    assert "Spread skill" in page.read_text()
    assert "Map of mean and spread of" in page.read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["spread"],
        ["members"],
        ["spaghetti", "--level", "990", "--level", "1010"],
        ["spaghetti", "--no-truth"],
        ["probability", "--below", "1000"],
    ],
    ids=" ".join,
)
def test_the_command_draws_ensembles(store, tmp_path, options):
    pytest.importorskip("cartopy")
    from PIL import Image

    picture = tmp_path / "map.png"
    assert _plotted(store, picture, *options).exit_code == 0
    assert Image.open(picture).width > 500


def test_the_command_says_what_a_picture_of_an_ensemble_needs(store, tmp_path):
    pytest.importorskip("cartopy")
    bare = _plotted(store, tmp_path / "map.png", "probability")
    assert "needs one threshold, either above or below" in str(bare.exception)
    lines = _plotted(store, tmp_path / "map.png", "members", "--contours", "z500")
    assert "'members' does not take contours" in str(lines.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variable", "mls"], "Did you mean 'msl'?"),
        (["--contours", "z50"], "There is no channel 'z50'"),
        (["--init", "1990-01-01"], "No forecast starts at 1990-01-01"),
        (["--lead", "90d"], "no lead time +2160 h"),
    ],
)
def test_a_wrong_choice_is_told_before_the_truth_is_opened(
    store, tmp_path, monkeypatch, options, said
):
    pytest.importorskip("cartopy")
    monkeypatch.setattr(
        "climlstm.data.forecasts.open_truth", lambda forecasts: pytest.fail("opened")
    )
    assert said in str(_plotted(store, tmp_path / "map.png", "mean", *options).exception)


def _plotted(store, picture, *options):
    arguments = ["plot", str(store), "--out", str(picture), "--variable", "msl", "--lead", "12h"]
    return CliRunner().invoke(app, [*arguments, "--ensemble", *options])


def test_a_network_without_noise_has_perturbed_initial_states(trained, tmp_path):
    inits = np.array(["2001-03-12", "2001-03-14"], "datetime64[ns]")
    runs.forecast(trained, tmp_path / "f.zarr", members=3, steps=2, init_times=inits)
    spread = open_forecasts(tmp_path / "f.zarr")["z500"].std("realization")
    climate = open_cube(trained.config.data)["z500"].std("time").mean()
    first = spread.isel(lead_time=0).mean()
    assert 0.03 * climate < first < 0.15 * climate


def config_with(trained, **forecast):
    config = trained.config
    changed = config.model_copy(update={"forecast": config.forecast.model_copy(update=forecast)})
    return type(trained)(trained.checkpoint, changed, trained.provenance)


def test_members_that_would_be_alike_are_refused(trained, tmp_path):
    from climlstm.model.saving import read_forecaster

    forecaster, _ = read_forecaster(trained.checkpoint)
    cube = open_cube(trained.config.data)
    inits = cube["time"].values[80:81]
    with pytest.raises(ConfigError, match="2 members would be alike"):
        next(forecast_batches(forecaster, cube, init_times=inits, steps=1, ensemble=Ensemble(2)))
    still = config_with(trained, perturbation=0.0, members=2)
    with pytest.raises(ConfigError, match="--perturbation") as error:
        runs.forecast(still, tmp_path / "f.zarr", init_times=inits, steps=1)
    advice = float(re.search(r"\(perturbation=(.*)\)", str(error.value))[1])
    runs.forecast(still, tmp_path / "f.zarr", init_times=inits, steps=1, perturbation=advice)
    assert float(open_forecasts(tmp_path / "f.zarr")["msl"].std("realization").mean()) > 10
    states = partial(histories, forecaster.spec, cube)
    drawn = Perturbations(0.0001, cube["time"].values[1:], states)
    one, single = (
        next(forecast_batches(forecaster, cube, init_times=inits, steps=1, ensemble=ensemble))
        for ensemble in (Ensemble(2, 0, drawn), Ensemble(1))
    )
    xr.testing.assert_allclose(one.isel(realization=1, drop=True), single, rtol=1e-3, atol=2)
