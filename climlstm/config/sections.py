"""The sections of a run file: every key, with what it means and its default."""

from datetime import timedelta
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from climlstm import html
from climlstm.advice import one_line
from climlstm.config.choices import PluginChoice, PluginName, chosen_plugins
from climlstm.config.roles import (
    AlsoConfig,
    BoundaryConfig,
    ChannelConfig,
    LevelWeight,
    PrescribedConfig,
    check_roles,
)
from climlstm.config.secrets import without_secrets
from climlstm.config.tuning import TuneConfig
from climlstm.config.values import (
    Duration,
    Parameters,
    Periods,
    Section,
    Size,
    StepLength,
    Workers,
)
from climlstm.steps import Step


class RegionConfig(Section):
    """A part of the globe, bounds included, in degrees north and east."""

    latitude: tuple[float, float]
    """Any order, within -90..90."""
    longitude: tuple[float, float]
    """West to east; west may be the larger number, or negative: [350, 20] crosses Greenwich."""

    @model_validator(mode="after")
    def _on_the_globe(self) -> "RegionConfig":
        if not all(-90 <= value <= 90 for value in self.latitude):
            raise ValueError(f"latitude {self.latitude} is not within -90..90")
        if not all(-360 <= value <= 360 for value in self.longitude):
            raise ValueError(f"longitude {self.longitude} is not within -360..360")
        if self.latitude[0] == self.latitude[1] or self.longitude[0] == self.longitude[1]:
            raise ValueError("a region needs some extent in latitude and longitude")
        return self


class CacheConfig(Section):
    """A folder that keeps what was fetched from a remote store, on a disk of each machine."""

    folder: str
    """On a local disk, the same path on each machine; workers and runs may share it."""
    size: Size = 20 * 2**30
    """Largest size; objects that were not used for the longest time are deleted first."""


class DataConfig(Section):
    """The data of a run: which channels, from which source, over which periods."""

    catalog: str
    """An Intake catalog: path or URL."""
    source: str
    """Name of the entry in the catalog."""
    parameters: Parameters = Field(default_factory=dict)
    """Values for the parameters of the entry."""
    also: tuple[AlsoConfig, ...] = ()
    """Further sources to train on. Validation, test and forecasts are those of `source`."""
    state: Annotated[tuple[PluginName, ...], Field(min_length=1)]
    """Channels that are forecast: `t2m`, `msl`, `z500`."""
    output: tuple[PluginName, ...] = ()
    """Channels that are forecast whole, not as a change, and never fed back: rain."""
    forcing: tuple[Literal["cos_zenith", "season", "day"], ...] = ()
    """Inputs that follow from time and place alone."""
    prescribed: dict[str, PrescribedConfig] = Field(default_factory=dict)
    """Channels that are known from outside while forecasting: sea surface temperature."""
    boundary: BoundaryConfig | None = None
    """Host that drives a region at its rim."""
    channels: dict[str, ChannelConfig] = Field(default_factory=dict)
    """Settings of single channels: transform, bounds, weight, means and sums over the step."""
    regions: dict[str, str] = Field(default_factory=dict)
    """Places of the user's own by name: `box:45..55,0..20`, `land_mask < 0.5`."""
    static: tuple[str, ...] = ()
    """Inputs that never change: `orography`, `land_mask`."""
    region: RegionConfig | None = None
    """Part of the globe; everything that the source has, if left out."""
    coarsen: PositiveInt = 1
    """Average over coarsen × coarsen cells."""
    step: StepLength
    """Time step: `6h`, `1d`, a multiple of the source's; or, for means of calendar months, that of
    the source: `1 month`, `season` (3 months), `year`."""
    periods: Periods
    memory: Size | None = None
    """Budget for blocks and batches in memory, such as '4GiB', shared by the workers of a machine,
    and size of the shuffle buffer. If left out, the buffer is that of 2 GiB (more for large grids),
    and blocks may fill 0.4 of the free memory."""
    cache: CacheConfig | None = None
    """Keeps what was fetched from a remote store; without it, each epoch fetches anew."""

    @model_validator(mode="after")
    def _without_secrets(self) -> "DataConfig":
        without_secrets({"catalog": self.catalog})
        return self

    @model_validator(mode="after")
    def _fitting_roles(self) -> "DataConfig":
        check_roles(self)
        return self

    @property
    def predicted(self) -> tuple[str, ...]:
        """Channels that are forecast, state first."""
        return (*self.state, *self.output)

    @property
    def from_source(self) -> tuple[str, ...]:
        """Channels with time that come from the run's own source, predicted ones first."""
        own = [name for name, each in self.prescribed.items() if each.source is None]
        return tuple(dict.fromkeys([*self.predicted, *own]))


class ModelConfig(Section):
    """The network."""

    name: PluginName = "convlstm"
    """A plugin of the group climlstm.models."""
    history: Annotated[int, Field(ge=1)] = 2
    """Known steps before a forecast."""
    noise: NonNegativeInt = 0
    """Fields of white noise that enter each transition, so that the network forecasts ensembles.
    It needs `training.members` of 2 or more and a loss of ensembles, such as `crps`."""
    start: PluginChoice = PluginChoice(name="persistence")
    """Forecast of each step that the network corrects: persistence; or `damped` or `linear`, as in
    `evaluation.baselines`, fitted to the training period and kept in the checkpoint. They need the
    forcing `season`."""
    options: dict[str, Any] = Field(default_factory=dict)


class OuterConfig(Section):
    """Local steps of each worker between exchanges (Douillard et al. 2023, arXiv:2311.08105), for
    links too slow to exchange gradients at each step."""

    every: PositiveInt = 100
    """Largest number of local steps between two exchanges; an epoch is divided evenly and ends with
    one. Weights of the last exchange are validated and kept."""
    learning_rate: PositiveFloat = 0.7
    """Learning rate of the outer optimiser, gradient descent with Nesterov's momentum."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Momentum of the outer optimiser. The paper's 0.9 is better with very many exchanges; with a
    few dozen it overshoots (benchmarks/scaling_link.py)."""


class TrainingConfig(Section):
    """How the network learns. Keys marked "For experts" have defaults that seldom need a change."""

    start_from: str | None = None
    """A checkpoint, or a run (its best one), to start from; what it has seen counts as seen."""
    normalise: Literal["parent", "own"] = "parent"
    """Whose mean and standard deviations it then has; `own` leaves out a bias between the data."""
    horizon: PositiveInt = 4
    """Lead steps predicted at the end of the training."""
    ramp: Annotated[float, Field(ge=0, le=1)] = 0.6
    """For experts: share of the training over which the horizon grows from 1 to its full length."""
    loss: PluginChoice = PluginChoice(name="mse")
    """A plugin of the group climlstm.losses."""
    members: PositiveInt = 1
    """Forecasts of each window, with noise of their own, that a loss of ensembles compares."""
    level_weight: LevelWeight | None = None
    """Factor in the loss for channels on pressure levels; None: 1 for all."""
    region: str | None = None
    """Place whose cells count in the loss, such as `europe`, `box:45..55,0..20`,
    `land_mask > 0.5`, or a name of `data.regions`; None: all."""
    balance: Literal["state", "tendency"] = "tendency"
    """For experts: weight of a channel in the loss. `state`: errors count in standard deviations of
    the state, `std`. `tendency`: errors count in `sqrt(std * tendency_std)`, with the standard
    deviation of the change over a step, so that slow channels are not neglected."""
    batch_size: PositiveInt = 16
    """Windows in one optimiser step, summed over all workers."""
    micro_batch: PositiveInt | None = None
    """Windows that a worker computes at once, to save memory: gradients of the parts of its share
    of a batch are accumulated. None: the whole share."""
    epochs: PositiveInt = 10
    """Passes over the training period."""
    learning_rate: PositiveFloat = 1e-3
    """Peak of the learning rate, which rises linearly and falls along a half cosine."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """For experts: share of the training in which the learning rate rises."""
    weight_decay: NonNegativeFloat = 1e-2
    """For experts: decay of AdamW, on weights but not on biases and scales."""
    clip: PositiveFloat = 1.0
    """For experts: largest norm of the gradient; larger ones are scaled down."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """For experts: decay of the running mean of the weights, which is validated and used for
    forecasts; 0: none."""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """Number format of the convolutions; auto: bfloat16 where the device gains from it."""
    gradients: Literal["float32", "bfloat16"] = "float32"
    """For experts: number format of gradients sent between workers; bfloat16 halves the bytes."""
    outer: OuterConfig | None = None
    """For experts: local steps with an outer optimiser; None: workers take each step together."""
    seed: NonNegativeInt = 0
    """Seed of weights, order of windows, and noise."""
    patience: PositiveInt | None = None
    """Validations without a better loss after which training ends early; None: never."""
    validate_every: PositiveInt | None = None
    """Optimiser steps between validations; None: once an epoch."""
    validation_windows: PositiveInt = 256
    """Largest number of windows in a validation, evenly spaced over the validation period."""
    checkpoint_minutes: PositiveFloat = 10.0
    """Minutes without a checkpoint after which one is written; each validation writes one too."""
    keep: PositiveInt = 2
    """Checkpoints kept, the best by validation loss; the latest one is kept as well."""
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()
    """Tools that get losses, skill and speed, besides `metrics.jsonl`."""
    threads: PositiveInt | None = None
    """For experts: CPU threads of one worker; None: its share of the machine."""


class ForecastConfig(Section):
    """Forecasts of the test period."""

    steps: PositiveInt = 20
    """Lead steps."""
    every: StepLength = Step(duration=timedelta(hours=24))
    """Time between initialisations; each step, where a step is longer."""
    batch_size: PositiveInt = 16
    """Forecasts computed together; each member of an ensemble counts."""
    members: PositiveInt = 1
    """Members of the ensemble; 1: a single forecast."""
    perturbation: NonNegativeFloat | None = None
    """Amplitude added to the initial states of members, in climatological standard deviations;
    None: 0.1, but 0 for a network with noise."""
    seed: NonNegativeInt = 0
    """Seed of noise and perturbations."""


class EvaluationConfig(Section):
    """How forecasts are scored."""

    evaluators: tuple[PluginChoice, ...] = (
        PluginChoice(name="rmse"),
        PluginChoice(name="mae"),
        PluginChoice(name="bias"),
        PluginChoice(name="acc"),
    )
    regions: tuple[str, ...] = ("global",)
    """Named parts of the globe, scored one by one."""
    baselines: tuple[PluginChoice, ...] = (
        PluginChoice(name="persistence"),
        PluginChoice(name="climatology"),
    )
    """Forecasts without a network, scored beside it: plugins of the group climlstm.baselines.
    `damped`, persistence of the anomaly, damped cell by cell, and `linear`, a linear inverse model
    of the leading EOFs, are fitted to the training period."""

    @model_validator(mode="after")
    def _once_each(self) -> "EvaluationConfig":
        chosen_plugins(self.evaluators)
        chosen_plugins(self.baselines)
        return self


class ClusterConfig(Section):
    """Workers of the training, and where runs are stored."""

    workers: Workers = 1
    """Training processes, each with a GPU or a share of the CPUs; [2, 8]: as many as fit, fewer
    when a host is lost, more when one joins."""
    gpu: bool = False
    storage: str = "runs"
    """Folder (or s3://, gs:// URL) for runs; each has a folder of its own name in it."""
    max_failures: NonNegativeInt = 3
    """Restarts from the last checkpoint when workers are lost."""
    timeout: Duration = timedelta(minutes=10)
    """Longest wait of one worker for the others; a worker that hangs counts as lost after it."""

    @model_validator(mode="after")
    def _without_secrets(self) -> "ClusterConfig":
        without_secrets({"address": self.storage})
        return self


VERSION = 1
"""Version of the run file's form that this climlstm writes, and up to which it reads."""


class Config(Section):
    """A run."""

    version: Annotated[int, Field(ge=1)] = VERSION
    """Version of the run file's form; one without it has today's."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Name of the run and of its folder."""
    data: DataConfig
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    forecast: ForecastConfig = ForecastConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()
    tune: TuneConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_of_a_later_climlstm(cls, content: Any) -> Any:
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"the run file has version {version} of its form, but this climlstm reads versions "
                f"up to {VERSION}. Update it with: pip install --upgrade climlstm"
            )
        return content

    def _repr_html_(self) -> str:
        """HTML of the keys that were set, section by section; defaults can be unfolded."""
        chosen = self.model_dump(mode="json", exclude_unset=True)
        sections = [
            html.table((name, ""), [(key, one_line(value)) for key, value in content.items()])
            for name, content in chosen.items()
            if isinstance(content, dict)
        ]
        return html.fragment(
            f'<div class="name">run {html.text(self.name)}</div>',
            *sections,
            html.details("complete, with defaults", f"<pre>{html.text(dump_config(self))}</pre>"),
        )


def dump_config(config: Config) -> str:
    """The run as YAML, complete with defaults; `load_config` reads it back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
