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
# # From a catalog to a forecast map
#
# What `make demo` left in the folder `demo/`: a catalog with simulated weather, and a ConvLSTM that
# was trained on it. Here it makes a forecast, which is drawn, animated and scored. Nothing is
# downloaded.

# %%
from pathlib import Path

from IPython.display import Image

import climlstm
from climlstm import plots

demo = next(folder for folder in (Path("demo"), Path("../demo")) if folder.is_dir())

# %% [markdown]
# ## The data
#
# A catalog says what there is. A run file says what to take from it; `open_cube` opens just that,
# under our names and in our units. Nothing is read yet.

# %%
[source] = climlstm.list_sources(str(demo / "catalog.yaml"))
print(source.name, "·", source.description)

# %%
config = climlstm.load_config(demo / "run.yaml")
cube = climlstm.open_cube(config.data)
cube

# %% [markdown]
# ## The forecaster
#
# Network, normalisation and grid in one, as the training left them.

# %%
forecaster = climlstm.load_forecaster(demo / "runs" / "demo")
forecaster

# %% [markdown]
# ## A forecast
#
# Five days from the middle of the test period, which the network has never seen.

# %%
start, stop = config.data.periods.bounds("test")
times = cube["time"].sel(time=slice(start, stop)).values
init_time = times[times.size // 2]
forecast = climlstm.forecast(demo / "runs" / "demo", init_times=[init_time], steps=20)
forecast

# %% [markdown]
# ## Maps
#
# Every dataset has `.climlstm`. Forecast, truth and error share what can be shared:

# %%
forecast.climlstm.plot_forecast("msl", truth=cube, lead_time="48h")

# %% [markdown]
# The same over several lead times, seen from above the Atlantic, with the 500 hPa surface as lines:

# %%
forecast.climlstm.plot_strip(
    "msl", lead_times=["1d", "2d", "3d"], truth=cube, contours="z500", region="north atlantic"
)

# %% [markdown]
# One field on its own, with wind, on any projection:

# %%
day = forecast.sel(init_time=init_time, lead_time="1D")
plots.plot_field(day["t850"], wind=(day["u10"], day["v10"]), projection="orthographic", width=5)

# %% [markdown]
# To leaf through it: move the sliders. Without ipywidgets this is a strip.

# %%
explorer = forecast.climlstm.explore("msl", truth=cube)
explorer

# %% [markdown]
# ## An animation

# %%
animation = forecast.climlstm.animate("msl", demo / "msl.gif", contours="z500", width=5)
Image(animation.read_bytes())

# %% [markdown]
# ## Scores
#
# Of the forecasts that the demo has stored, beside what they must beat. Brackets are intervals of
# 95 %, from a bootstrap of blocks of initialisations.

# %%
stored = climlstm.open_forecasts(demo / "forecasts.zarr")
found = stored[["msl", "z500"]].climlstm.verify()
found

# %%
plots.plot_scores(found.scores, metric="rmse")

# %% [markdown]
# `stored.climlstm.report("report.html")` writes all of it, and more, on one page to pass on.
