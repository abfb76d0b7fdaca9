"""The run file: what a run is, in sections, checked on loading as far as possible without data."""

from climlstm.config.checks import used_plugins
from climlstm.config.choices import PluginChoice, chosen_plugins
from climlstm.config.roles import (
    KNOWN_FROM,
    BoundaryConfig,
    ChannelConfig,
    PrescribedConfig,
    TransformChoice,
)
from climlstm.config.run_file import as_config, load_config, parse_config
from climlstm.config.sections import (
    CacheConfig,
    ClusterConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ForecastConfig,
    ModelConfig,
    OuterConfig,
    Periods,
    RegionConfig,
    TrainingConfig,
    dump_config,
)
from climlstm.config.tuning import SearchRange, TuneConfig
from climlstm.config.values import (
    Moment,
    Section,
    format_size,
    period_bounds,
)

__all__ = [
    "KNOWN_FROM", "BoundaryConfig", "CacheConfig", "ChannelConfig", "ClusterConfig", "Config",
    "DataConfig", "EvaluationConfig", "ForecastConfig", "ModelConfig", "Moment", "OuterConfig",
    "Periods", "PluginChoice", "PrescribedConfig", "RegionConfig", "SearchRange", "Section",
    "TrainingConfig", "TransformChoice", "TuneConfig", "as_config", "chosen_plugins",
    "dump_config", "format_size", "load_config", "parse_config", "period_bounds",
    "used_plugins",
]  # fmt: skip
