"""Check a run file and its source before anything is trained."""

import numpy as np
import torch

from climlstm.audit.audit import Audit, audit, cannot_be_read, check_source
from climlstm.audit.cost import reading_cost
from climlstm.audit.findings import Finding
from climlstm.config import Config
from climlstm.data.cube.cube import plan_cube
from climlstm.data.sources.catalog import open_source
from climlstm.data.windows.plan import plan_windows
from climlstm.errors import ClimLSTMError
from climlstm.runs.cubes import plan_of
from climlstm.training.parallel import Workers
from climlstm.training.speed import seconds_per_batch
from climlstm.training.task import count_parameters, open_windows, order_windows


def check_run(config: Config) -> Audit:
    """The audit of a run file and its source; a few steps are read, nothing is fitted."""
    try:
        source = open_source(config.data.catalog, config.data.source, **config.data.parameters)
    except ClimLSTMError as error:
        return Audit((cannot_be_read(config, error),))
    try:
        plan = plan_cube(source, config.data)
        parameters = count_parameters(config, plan.cube())
        return audit(config, plan, parameters=parameters)
    except ClimLSTMError as error:
        return check_source(config, source, error)


def check_reading(config: Config) -> Finding:
    """What reading the training windows will cost; some of them are read, and a step is tried.

    Where the run asks for a GPU and this machine has none, the time of a step is left open.
    Raises a ClimLSTMError where source and run file do not fit.
    """
    plan = plan_of(config.data)
    cube, channels = plan.cube(), len(config.data.state)
    starts = plan_windows(
        cube["time"].values,
        period=config.data.periods.bounds("train"),
        history=config.model.history,
        horizon=config.training.horizon,
        step=np.timedelta64(config.data.step),
    )
    alone = Workers(0, 1, torch.device("cpu"))
    with open_windows(
        config, plan, alone, mean=np.zeros(channels), std=np.ones(channels)
    ) as stream:
        cost = reading_cost(stream, order_windows(config, starts, stream))
    here = torch.cuda.is_available() or not config.cluster.gpu
    seconds = seconds_per_batch(config, cube) if here else None
    return cost.finding(config.training.batch_size, seconds)
