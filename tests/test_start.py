"""Networks that correct a linear model: what they start from, and that they keep it."""

import numpy as np
import pytest
import torch

from climlstm import runs
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import climatology_at
from climlstm.errors import ConfigError
from climlstm.evaluation.baselines import Damped, Linear
from climlstm.forecasting import forecast_batches
from climlstm.model.start import LinearStart, cycles
from climlstm.runs import find_trained
from climlstm.training.start import fit_start
from climlstm.training.untrained import build_forecaster

STARTS = {
    "damped": ("model.start=damped", Damped()),
    "linear": ("model.start={name: linear, options: {eofs: 12}}", Linear(eofs=12)),
}


@pytest.mark.parametrize("kind", STARTS)
def test_an_untrained_network_forecasts_its_start(small_run, kind):
    """The same as the baseline at lead 1, but for the seasons, of which three harmonics are kept;
    `linear` after four steps too, since each step is one of the model's."""
    override, baseline = STARTS[kind]
    config = small_run(override)
    data = RunData(config)
    forecaster = build_forecaster(
        config,
        data.cube,
        data.statistics,
        precision=torch.float32,
        start=fit_start(data, data.statistics),
    )
    init = data.cube.time.values[[100]]
    [made] = forecast_batches(forecaster, data.cube, init_times=init, steps=4)
    fitted = baseline.fit(data.training_period(leads=4))
    start = data.cube.sel(time=init)[list(config.data.state)]
    leads, lead = made.lead_time.values, {"time": "lead_time"}
    normal = climatology_at(data.climatology, init + leads).rename(lead)
    wanted = fitted.forecast(
        start.rename(lead).assign_coords(lead_time=leads[:1] * 0),
        leads,
        climatology=normal.assign_coords(lead_time=leads),
        past_climatology=climatology_at(data.climatology, init).rename(lead),
    )
    for name in config.data.state:
        found, expected = made[name].isel(init_time=0).values, wanted[name].values
        change = np.std(expected[0] - start[name].values[0])
        steps = slice(None) if kind == "linear" else slice(1)
        assert np.sqrt(((found - expected)[steps] ** 2).mean()) < 0.5 * change, name


def test_the_step_is_that_of_the_written_formula():
    generator = torch.Generator().manual_seed(0)
    read, write = torch.randn(2, 3, 4, 5, generator=generator) / 8, torch.zeros(2, 3, 4, 5)
    write[0, 0], write[1, 1] = 1.0, 2.0
    propagator = torch.tensor([[0.5, 0.1], [-0.1, 0.5]])
    damping, offset = torch.full((3, 4, 5), 0.25), torch.randn(7, 3, 4, 5, generator=generator)
    start = LinearStart(read, write, propagator, damping, offset)
    state = torch.randn(2, 3, 4, 5, generator=generator)
    forcing = torch.zeros(2, 2, 4, 5)
    forcing[:, 0], forcing[:, 1] = np.sin(0.3), np.cos(0.3)
    terms = [1.0, *(np.sin(0.3 * k) for k in (1, 2, 3)), *(np.cos(0.3 * k) for k in (1, 2, 3))]
    names = ("season_sin", "season_cos")
    np.testing.assert_allclose(cycles(forcing, names)[0], terms, atol=1e-6)
    components = torch.einsum("kchw,bchw->bk", read, state)
    kept = torch.einsum("bk,kchw->bchw", components, write)
    wanted = torch.einsum("bk,kchw->bchw", components @ propagator.T, write)
    wanted = wanted + 0.25 * (state - kept)
    wanted = wanted + sum(term * field for term, field in zip(terms, offset, strict=True))
    torch.testing.assert_close(start(state, forcing, names), wanted.float())


def test_a_trained_start_is_kept_resumed_and_fine_tuned(small_run, tmp_path):
    config = small_run(STARTS["linear"][0], "training.epochs=1")
    trained = find_trained(runs.train(config, under_ray=False))
    forecaster = runs.load_forecaster(trained.checkpoint)
    assert forecaster.spec.start == "linear"
    assert forecaster.start.write.shape[0] == 12
    found = runs.forecast(trained, tmp_path / "f.zarr", steps=2)
    scores = runs.evaluate(found, baselines=["linear", "persistence"]).scores
    rows = scores[(scores["metric"] == "rmse") & (scores["lead_time"] == "6h")]
    mean = rows.assign(value=rows["value"] / rows.groupby("variable")["value"].transform("max"))
    mean = mean.groupby("model")["value"].mean()
    assert mean["convlstm"] < mean["persistence"]
    place = f"training.start_from={trained.checkpoint}"
    runs.train(small_run(STARTS["linear"][0], "name=child", place), under_ray=False)


def test_starts_that_cannot_be_are_refused(small_run):
    with pytest.raises(ConfigError, match=r"has no 'season'\. Add it"):
        small_run("model.start=linear", "data.forcing=[]")
    assert small_run("model.start=linear", "data.forcing=[season]").model.start.name == "linear"
    data = RunData(small_run("model.start=climatology"))
    with pytest.raises(ConfigError, match=r"no linear model.*damped or linear"):
        fit_start(data, data.statistics)
