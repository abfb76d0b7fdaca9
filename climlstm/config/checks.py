"""Checks that the plugins of a run file are installed, and that its keys fit together."""

from collections.abc import Mapping
from typing import Any

from climlstm import plugins
from climlstm.config.roles import number_and_unit
from climlstm.config.sections import Config
from climlstm.errors import ConfigError, PluginError
from climlstm.plugins import Kind, Plugin
from climlstm.plugins.channels import channel, may_be_own, plugins_of


def used_plugins(config: Config) -> list[Plugin]:
    """Every plugin that a run uses, each once: whose it is, and in which version.

    Network, loss, evaluators, baselines, transforms, and the variables of all channels with their
    inputs.
    Raises PluginError where one is not installed.
    """
    chosen = [plugins.identify(kind, name) for _, kind, name, _ in _choices(config)]
    for name in (*config.data.predicted, *config.data.prescribed, *config.data.static):
        chosen += plugins_of(name)
    return list(dict.fromkeys(chosen))


Choice = tuple[str, Kind, str, Mapping[str, Any]]
"""Place in the run file, kind, name and options of a plugin."""


def _choices(config: Config) -> list[Choice]:
    model, loss = config.model, config.training.loss
    return [
        ("model", "models", model.name, model.options),
        ("model.start", "baselines", model.start.name, model.start.options),
        ("training.loss", "losses", loss.name, loss.options),
        *(
            (f"evaluation.evaluators.{number}", "evaluators", choice.name, choice.options)
            for number, choice in enumerate(config.evaluation.evaluators)
        ),
        *(
            (f"evaluation.baselines.{number}", "baselines", choice.name, choice.options)
            for number, choice in enumerate(config.evaluation.baselines)
        ),
        *(
            (f"data.channels.{name}.transform", "transforms", chosen.name, _numbers(chosen.options))
            for name, setting in config.data.channels.items()
            if (chosen := setting.transform) is not None
        ),
    ]


def _numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a transform with quantities ('1 mm') as numbers, whose units are checked later."""
    amounts = {key: number_and_unit(value) for key, value in options.items()}
    return {key: value if (a := amounts[key]) is None else a[0] for key, value in options.items()}


def check_plugins(config: Config, *, channels_only: bool = False) -> list[str]:
    """Messages about plugins that a run names and that are missing, or have wrong options.

    channels_only: leave out the network, the loss and what scores.
    """
    wrong = []
    for place, kind, name, options in () if channels_only else _choices(config):
        try:
            plugins.load(kind, name)
        except PluginError as error:
            wrong.append(f"{place}: {error}")
            continue
        try:
            plugins.check_options(kind, name, options)
        except PluginError as error:
            wrong.append(f"{place}.options: {error}")
    data = config.data
    for place, names in (
        ("data.state", data.state),
        ("data.output", data.output),
        ("data.static", data.static),
        ("data.prescribed", tuple(data.prescribed)),
    ):
        for name in names:
            if may_be_own(name):
                continue  # a source's own variable, if there is one: known when it is opened
            try:
                channel(name)
            except PluginError as error:
                wrong.append(f"{place}: {error}")
    return wrong


def check_start(config: Config, where: str) -> None:
    """Raises ConfigError where a linear start lacks the seasons, or channels are not linear."""
    data, start = config.data, config.model.start.name
    if start == "persistence":
        return
    if "season" not in data.forcing:
        raise ConfigError(
            f"{where}: 'model.start' is '{start}', which follows the seasons, but 'data.forcing' "
            "has no 'season'. Add it: forcing: [season]."
        )
    if data.output:
        raise ConfigError(
            f"{where}: 'model.start' is '{start}', which carries the whole state forward, but "
            "there are outputs that are not fed back. Choose persistence."
        )


def check_ensemble(config: Config, where: str) -> None:
    """Raises ConfigError unless noise, members and an ensemble loss are all set, or none."""
    noise, members, loss = config.model.noise, config.training.members, config.training.loss.name
    if (noise > 0) != (members > 1):
        consequence = (
            "a loss that sees one member would teach the network to ignore its noise"
            if noise
            else "without noise all members are alike"
        )
        raise ConfigError(
            f"{where}: 'model.noise' is {noise} and 'training.members' is {members}: "
            f"{consequence}. Set both (such as noise 2, members 2), or leave both out."
        )
    if noise and not getattr(plugins.load("losses", loss), "ensemble", False):
        raise ConfigError(
            f"{where}: 'training.loss' is '{loss}', which is no loss of ensembles, but "
            f"'training.members' is {members}. Choose 'crps', or leave out model.noise and "
            "training.members."
        )
