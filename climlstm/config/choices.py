"""Plugins that a run file chooses, by name and with options."""

from collections.abc import Iterable
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from climlstm import plugins
from climlstm.config.plain_yaml import TextDatesLoader, load_yaml
from climlstm.config.values import Section
from climlstm.errors import ConfigError
from climlstm.plugins import Variable
from climlstm.plugins.options import options_of


def _name_of_an_object(value: object) -> object:
    return plugins.name_of(value) if isinstance(value, type | Variable) else value


PluginName = Annotated[str, BeforeValidator(_name_of_an_object)]
"""In Python also a class, or a Variable."""


class PluginChoice(Section):
    """A plugin by name, with its options; in Python also the object itself, `Huber(delta=2)`."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _of_an_object(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if callable(value) or hasattr(value, "score") or hasattr(value, "forecast"):
            return {"name": plugins.name_of(value), "options": options_of(value)}
        return value

    @classmethod
    def parse(cls, text: str) -> "PluginChoice":
        """The choice in a text: a name, or '{name: storms, options: {preset: tropical}}'.

        Raises ConfigError where it is neither.
        """
        try:
            content = (
                load_yaml(text, TextDatesLoader)
                if text.lstrip().startswith("{")
                else {"name": text}
            )
            return cls.model_validate(content)
        except (yaml.YAMLError, ValidationError) as error:
            raise ConfigError(
                f"'{text}' is no choice of a plugin: give its name, or as in a run file "
                "'{name: NAME, options: {OPTION: VALUE}}'."
            ) from error

    @property
    def label(self) -> str:
        """Its name without the distribution or module that has it."""
        return self.name.rpartition(":")[2]


def chosen_plugins(choices: Iterable[Any]) -> tuple[PluginChoice, ...]:
    """Evaluators or baselines as choices, from such ones, their names, or the objects themselves.

    Raises ConfigError where two of them would have one name in the tables.
    """
    chosen = tuple(PluginChoice.model_validate(choice) for choice in choices)
    labels = [choice.label for choice in chosen]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(
            f"named more than once: {', '.join(twice)}. Their scores would have one "
            "name: score a second time with 'climlstm evaluate'."
        )
    return chosen
