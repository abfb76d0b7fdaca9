# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A variable, a loss and an evaluator of your own
#
# First in this notebook, then as a package that others can install. The weather is that of
# `make demo`; nothing is downloaded.

# %%
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

import climlstm
from climlstm.grid import cell_area_weights
from climlstm.training.progress import Display

demo = next(folder for folder in (Path("demo"), Path("../demo")) if folder.is_dir()).resolve()
scratch = Path(tempfile.mkdtemp(prefix="climlstm-notebook-"))
periods = climlstm.load_config(demo / "run.yaml").data.periods

# %% [markdown]
# ## A variable
#
# What follows from others is derived, lazily, in SI units. The style is how people like to see it.

# %%
WIND_POWER = climlstm.Variable(
    name="wp10",
    long_name="Wind power density at 10 m",
    units="W m-2",
    inputs=("u10", "v10"),
    derive=lambda ds: 0.5 * 1.225 * np.hypot(ds["u10"], ds["v10"]) ** 3,  # kg m-3, sea level
    style=climlstm.Style(colormap="YlGnBu", limits=(0, 3000)),
)

# %% [markdown]
# ## A loss
#
# A frozen dataclass. Its fields are its options; `weight` has the area of the cells in it.


# %%
@dataclass(frozen=True)
class Quartic:
    """Large errors count more than in the mean square."""

    power: int = 4

    def __call__(self, prediction, target, *, weight, channels):
        return (weight * (prediction - target) ** self.power).mean()


# %% [markdown]
# ## An evaluator
#
# It scores one forecast at a time into a table, and sums up at the end: ratios and roots are taken
# there, not before.


# %%
@dataclass(frozen=True)
class GaleHits:
    """Share of the area with strong wind in the truth that has it in the forecast, too."""

    requires: ClassVar[tuple[str, ...]] = ("u10", "v10")
    threshold: float = 12.0

    def score(self, forecast, truth):
        windy = [np.hypot(data["u10"], data["v10"]) > self.threshold for data in (forecast, truth)]
        area = cell_area_weights(forecast["latitude"])
        true = windy[1].weighted(area).sum(["latitude", "longitude"])
        both = (windy[0] & windy[1]).weighted(area).sum(["latitude", "longitude"])
        return pd.DataFrame(
            {"lead_time": forecast["lead_time"].values, "both": both.values, "true": true.values}
        )

    def summarise(self, scores):
        sums = scores.groupby("lead_time", as_index=False)[["both", "true"]].sum()
        value = sums["both"] / sums["true"]
        return sums[["lead_time"]].assign(
            variable="ws10", metric="gale_hits", value=value, units="1", n=len(scores)
        )


# %% [markdown]
# ## All three in a run
#
# A run file names plugins; in Python the objects stand for themselves. A few steps of training
# are enough to see that they work.

# %%
config = climlstm.load_config(
    demo / "run.yaml",
    ["training.epochs=1", "training.horizon=1", "model.options={hidden: [8]}"],
    values={
        "name": "mine",
        "data.state": ["u10", "v10", WIND_POWER],
        "data.periods.train": [periods.train[0], periods.train[0] + timedelta(days=40)],
        "training.loss": Quartic(power=4),
        "evaluation.evaluators": [GaleHits(threshold=8.0)],
        "forecast.steps": 4,
        "cluster.storage": str(scratch),
    },
)
config

# %%
with Display() as display:
    checkpoint = climlstm.train(config, under_ray=False, observe=display)

# %% [markdown]
# The derived variable is a channel like any other, and the evaluator's scores stand beside those of
# persistence:

# %%
cube = climlstm.open_cube(config.data)
init_times = cube["time"].sel(time=slice(periods.test[0], None)).values[4:40:12]
forecasts = climlstm.forecast(checkpoint, scratch / "forecasts.zarr", init_times=init_times)
wind_power = config.data.state[2]  # a variable without a package is named by its place
forecasts.climlstm.plot_forecast(wind_power, truth=cube, lead_time="6h")

# %%
found = climlstm.evaluate(forecasts, baselines=("persistence",))
hits = found.scores.pivot_table(values="value", index="lead_time", columns="model")
hits

# %% [markdown]
# ## As a package
#
# `climlstm plugins new` writes a project with an entry point, a README and tests that ask of the
# plugin what climlstm promises its users.

# %%
new = [sys.executable, "-m", "climlstm", "plugins", "new", "loss", "quartic"]
subprocess.run([*new, "--in", str(scratch)], check=True)
project = scratch / "climlstm-quartic"
for path in sorted(project.rglob("*")):
    if path.is_file():
        print(path.relative_to(scratch))

# %%
print((project / "climlstm_quartic" / "__init__.py").read_text())

# %%
command = [sys.executable, "-m", "pytest", "-q", "--color=no"]
tests = subprocess.run(command, cwd=project, capture_output=True, text=True)
print(tests.stdout.splitlines()[-1])

# %% [markdown]
# Put your own class into it, and `pip install -e climlstm-quartic`. From then on every run file
# can say `training: {loss: {name: quartic}}`, `climlstm plugins list` shows it, and checkpoints
# note its version.
