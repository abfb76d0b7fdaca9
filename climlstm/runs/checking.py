"""Check a run before it is trained: whatever training would refuse, by the same code."""

import torch

from climlstm.audit.audit import Audit, cannot_be_read, check_source
from climlstm.audit.cost import reading_cost
from climlstm.audit.findings import Finding
from climlstm.config import Config
from climlstm.data.roles import ChannelWeight, channel_weights
from climlstm.data.run_data import RunData
from climlstm.data.statistics.climatology import axes_of
from climlstm.data.windows.plan import share
from climlstm.environment import check_gpus, usable_cores
from climlstm.errors import ClimLSTMError
from climlstm.training.lineage import find_parent
from climlstm.training.speed import seconds_per_batch
from climlstm.training.task import audit_fits, audit_source, check_hours
from climlstm.training.tracking import require_tools


def check_run(config: Config, *, quick: bool = False, elsewhere: bool = False) -> Audit:
    """The audit of a run: its file and source, all that is fitted, the machine, and reading.

    Statistics are computed from the whole training period, and kept for the training itself.
    quick: read a few steps only, and leave out what is fitted (but for hours that the climatology
        will lack, which times tell) and measured.
    elsewhere: the run is for a cluster, so that the GPUs and CPUs of this machine do not matter.
    """
    data = RunData(config)
    try:
        source = data.source
    except ClimLSTMError as error:
        return Audit((cannot_be_read(config, error),))
    try:
        found = audit_source(data)
    except ClimLSTMError as error:
        return check_source(config, source, error)
    if not found.passed:
        return found
    try:
        if quick:
            axes = axes_of(data.plan.times.values, data.periods["train"])
            check_hours(data, axes, data.validated(()))
            return found
        require_tools(config)
        found = found.having(audit_fits(data, find_parent(config, None)))
        found = found.having([_check_reading(data)])
        if not elsewhere:
            _require_machine(config)
    except ClimLSTMError as error:
        return found.having([_refusal(config, error)])
    return found


def chosen_weights(config: Config) -> list[ChannelWeight]:
    """Weights of channels in the loss; none where the run file leaves them all to the product."""
    chosen = {each.weight for each in config.data.channels.values()} - {1.0}
    if not chosen and config.training.level_weight is None:
        return []
    return channel_weights(config, RunData(config).statistics)


def _check_reading(data: RunData) -> Finding:
    """Measure the cost of reading the training windows on a sample, beside a training step.

    Where the run asks for a GPU and this machine has none, the time of a step is left open.
    """
    config, fewest = data.config, _fewest_workers(data.config)
    with data.open_windows(data.statistics) as stream:
        plan = data.order(data.train_starts, stream)
        share(plan.groups(0)[:1], rank=0, world=fewest)
        cost = reading_cost(stream, plan)
    here = torch.cuda.is_available() or not config.cluster.gpu
    seconds = seconds_per_batch(config, data.cube) if here else None
    return cost.finding(config.training.batch_size, seconds)


def _require_machine(config: Config) -> None:
    """Raises ConfigError unless this machine has the GPUs or CPUs that `train` takes on it."""
    fewest = _fewest_workers(config)
    if config.cluster.gpu:
        check_gpus(fewest, "cluster.gpu is true", "Set cluster.gpu=false")
    elif fewest > 1:
        from climlstm.on_ray.training import require_room  # Ray takes seconds to import

        require_room(config, [{"CPU": usable_cores()}], may_grow=False)


def _fewest_workers(config: Config) -> int:
    workers = config.cluster.workers
    return workers if isinstance(workers, int) else workers[0]


def _refusal(config: Config, error: ClimLSTMError) -> Finding:
    """The finding that stands for an error with which the training would end."""
    return Finding(
        "training-refuses",
        "error",
        str(error).rstrip("."),
        f"run '{config.name}'",
        type(error).__name__,
        "Correct the run file or the source, as the message says.",
    )
