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
# # Training on a cluster, from Jupyter
#
# A run file becomes a job of a Ray cluster: it goes on when this notebook is closed, and it is
# watched from here. `cluster/README.md` tells how to start a cluster of many machines. Without one,
# the next cell starts a small one on this machine.

# %%
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import ray
from IPython.display import clear_output, display

import climlstm
from climlstm.on_ray.jobs import job_log, list_jobs, start_job
from climlstm.runs import find_trained
from climlstm.training.progress import describe, read_journal

demo = next(folder for folder in (Path("demo"), Path("../demo")) if folder.is_dir()).resolve()
address = os.environ.get("RAY_API_SERVER_ADDRESS")
if address is None:
    here = Path(sys.executable).parent  # jobs run the first python that they find: this one
    os.environ["PATH"] = f"{here}{os.pathsep}{os.environ['PATH']}"
    cluster = ray.init(num_cpus=2, include_dashboard=True, logging_level="error")
    address = f"http://{cluster.dashboard_url}"
address

# %% [markdown]
# ## The run
#
# That of the demo on a month of its data, so that it takes a minute: two epochs with two workers.
# A cluster of machines needs a `storage` that all of them reach.

# %%
storage = Path(tempfile.mkdtemp(prefix="climlstm-notebook-"))
first = climlstm.load_config(demo / "run.yaml").data.periods.train[0]
last = first + pd.Timedelta(days=30)
config = climlstm.load_config(
    demo / "run.yaml",
    ["training.epochs=2", "training.horizon=1", "cluster.workers=2", "model.options={hidden: [8]}"],
    values={
        "name": "from-jupyter",
        "data.periods.train": [first, last],
        "cluster.storage": str(storage),
    },
)
config

# %% [markdown]
# ## Launch
#
# The same as `climlstm submit run.yaml --address …`.

# %%
job = start_job(config, address=address)
job

# %% [markdown]
# ## Watch
#
# What the workers report, as it comes. Interrupting this cell leaves the job alone; running it
# again goes on watching.

# %%
journal = storage / config.name / "metrics.jsonl"


def look():
    """The state of our job, and what it has reported."""
    [ours] = [found for found in list_jobs(address) if found.id == job]
    return ours, read_journal(journal)


state, records = look()
while state.status in ("PENDING", "RUNNING"):
    time.sleep(2)
    state, records = look()
    clear_output(wait=True)
    print(state.status, "\n".join(describe(record) for record in records[-8:]), sep="\n")

# %%
display(pd.DataFrame(list_jobs(address)).set_index("id"))
print(job_log(address, job)[-600:])

# %% [markdown]
# ## What came of it
#
# A checkpoint like any other: `climlstm forecast` and the first notebook go on from here.

# %%
losses = pd.DataFrame([record for record in records if record["event"] == "valid"])
losses[["step", "valid_loss"]]

# %%
trained = find_trained(storage / config.name)
trained.checkpoint

# %%
if ray.is_initialized():
    ray.shutdown()
