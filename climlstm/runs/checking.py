"""Check a run file and its source before anything is trained."""

import torch

from climlstm.audit.audit import Audit, audit, cannot_be_read, check_source
from climlstm.audit.cost import reading_cost
from climlstm.audit.findings import Finding
from climlstm.config import Config
from climlstm.data.run_data import RunData
from climlstm.errors import ClimLSTMError
from climlstm.training.speed import seconds_per_batch
from climlstm.training.untrained import count_parameters, sketch_forecaster


def check_run(config: Config) -> Audit:
    """The audit of a run file and its source; a few steps are read, nothing is fitted."""
    data = RunData(config)
    try:
        source = data.source
    except ClimLSTMError as error:
        return Audit((cannot_be_read(config, error),))
    try:
        sketch = sketch_forecaster(config, data.cube)
        return audit(config, data.plan, parameters=count_parameters(sketch))
    except ClimLSTMError as error:
        return check_source(config, source, error)


def check_reading(config: Config) -> Finding:
    """Measure the cost of reading the training windows on a sample, beside a training step.

    Where the run asks for a GPU and this machine has none, the time of a step is left open.
    Raises a ClimLSTMError where source and run file do not fit.
    """
    data = RunData(config)
    with data.open_windows() as stream:
        cost = reading_cost(stream, data.order(data.all_starts("train"), stream))
    here = torch.cuda.is_available() or not config.cluster.gpu
    seconds = seconds_per_batch(config, data.cube) if here else None
    return cost.finding(config.training.batch_size, seconds)
