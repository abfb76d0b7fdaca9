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
# # Rain in the next hour
#
# ConvLSTM was invented for radar nowcasting (Shi et al. 2015). Here one is trained on a film of
# synthetic rain, whose cells move, grow and decay, and scored beside advection, which moves rain
# but knows nothing of growth. It takes a minute or two, so the network is small and its training
# short: `benchmarks/nowcast.py` has a longer one, and a real event.
#
# Needs `pip install climlstm-nowcast`. Radar files (ODIM, KNMI, NetCDF) are read by the engines
# that its README names.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from climlstm_nowcast.baselines import Advection
from climlstm_nowcast.synthetic import rain_film
from IPython.display import Image
from matplotlib.animation import FuncAnimation, PillowWriter

import climlstm
from climlstm import runs

folder = Path(tempfile.mkdtemp(prefix="climlstm-nowcast-"))

# %% [markdown]
# ## A film of rain
#
# Frames of 64 × 64 cells of 2 km, every 6 minutes. The same seed gives the same film.

# %%
film = rain_film(400, seed=1)
film[["rain_rate", "crs"]].to_zarr(folder / "film.zarr", consolidated=False)
film["rain_rate"]

# %%
(folder / "catalog.yaml").write_text("""
sources:
  film: {driver: zarr, args: {urlpath: "{{ CATALOG_DIR }}/film.zarr"}}
""")
times = [str(time)[:16] for time in film.time.values]
(folder / "run.yaml").write_text(f"""
name: nowcast
data:
  catalog: catalog.yaml
  source: film
  step: 6min
  state: [rain_rate]
  channels: {{rain_rate: {{transform: dbr, minimum: 0}}}}   # rain in decibel
  periods:
    train: [{times[0]}, {times[259]}]
    valid: [{times[270]}, {times[309]}]
    test: [{times[320]}, {times[399]}]
model: {{history: 4, options: {{hidden: [24], blocks: 0, patch: 4}}}}   # four frames in
training: {{horizon: 5, epochs: 4, batch_size: 8, learning_rate: 3.0e-3, loss: balanced}}
forecast: {{steps: 5, every: 30min}}
evaluation:
  evaluators: [{{name: categorical, options: {{thresholds: [0.5, 5]}}}}]
  baselines: [persistence, advection]
cluster: {{storage: {folder}/runs}}
""")
run = climlstm.load_config(folder / "run.yaml")

# %% [markdown]
# ## Training and forecasts

# %%
trained = runs.train(run, under_ray=False)
forecasts = climlstm.forecast(trained, folder / "forecasts.zarr", verifiable=True)
forecasts

# %% [markdown]
# ## Scores
#
# The critical success index: hits / (hits + misses + false alarms), counted over all forecasts.

# %%
scores = climlstm.evaluate(folder / "forecasts.zarr").scores
chosen = scores[scores["metric"].isin(["csi_0.5", "csi_5"])]
chosen.pivot_table(index="model", columns=["metric", "lead_time"], values="value").round(2)

# %% [markdown]
# ## Truth, advection, ConvLSTM

# %%
init = forecasts.init_time.values[2]
last = int(np.flatnonzero(film.time.values == init)[0])
past = film[["rain_rate"]].isel(time=slice(last - 2, last + 1)).drop_vars("time")
minutes = np.arange(-2, 1) * np.timedelta64(6, "m")
past = past.rename(time="lead_time").assign_coords(lead_time=minutes)
leads = forecasts.lead_time.values
panels = {
    "truth": film["rain_rate"].values[last + 1 : last + 1 + leads.size],
    "advection": Advection().forecast(past, leads)["rain_rate"].values,
    "ConvLSTM": forecasts["rain_rate"].sel(init_time=init).values,
}

# %%
figure, axes = plt.subplots(1, 3, figsize=(7.5, 2.9), layout="constrained")
images = [
    ax.imshow(np.where(rain[0] < 0.1, np.nan, rain[0]), cmap="YlGnBu", vmin=0, vmax=20)
    for ax, rain in zip(axes, panels.values(), strict=True)
]
for ax, name in zip(axes, panels, strict=True):
    ax.set(title=name, xticks=[], yticks=[])
figure.colorbar(images[0], ax=axes, label="mm/h", shrink=0.8)


def show(number):
    for image, rain in zip(images, panels.values(), strict=True):
        image.set_data(np.where(rain[number] < 0.1, np.nan, rain[number]))
    figure.suptitle(f"{leads[number] / np.timedelta64(1, 'm'):.0f} minutes after the start")


animation = FuncAnimation(figure, show, frames=leads.size)
animation.save(folder / "nowcast.gif", writer=PillowWriter(fps=2), dpi=70)
plt.close(figure)
Image((folder / "nowcast.gif").read_bytes())
