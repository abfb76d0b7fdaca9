"""Our commands together with those of plugins."""

from importlib.metadata import PackageNotFoundError, metadata
from typing import Any

import typer
from typer.core import TyperGroup

from climlstm.errors import PluginError
from climlstm.plugins.discovery import discover


class Commands(TyperGroup):
    """Our commands, and those of plugins, which are imported when they are called, not for help.

    A plugin's command is a typer app: an entry point of the group climlstm.commands.
    """

    _helping = False

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._helping = True
        super().format_help(ctx, formatter)
        self._helping = False

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return own + sorted({plugin.name for plugin in discover("commands")} - set(own))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        found = [plugin for plugin in discover("commands") if plugin.name == cmd_name]
        if own is not None or not found:
            return own
        if self._helping:
            return typer.main.get_command(_stand_in(cmd_name, _summary(found[0].distribution)))
        try:
            if len(found) > 1:
                raise PluginError(
                    f"The command '{cmd_name}' is offered by several packages: "
                    f"{' and '.join(f'{p.distribution} {p.version}' for p in found)}. Remove all "
                    "but one, or name that one in CLIMLSTM_PLUGINS."
                )
            from climlstm.plugins import load_found

            command = typer.main.get_command(load_found(found[0]))
            command.name = cmd_name  # which help shows, and typer leaves to the group
            return command
        except Exception as error:  # other commands must not fail because one package is broken
            return typer.main.get_command(_stand_in(cmd_name, "(cannot be used)", error))


def _summary(distribution: str) -> str:
    """One line about a distribution, from its metadata."""
    try:
        return metadata(distribution).get("Summary", distribution)  # type: ignore[attr-defined]
    except PackageNotFoundError:
        return distribution


def _stand_in(name: str, text: str, cause: Exception | None = None) -> typer.Typer:
    """A command in place of a plugin's own, which says why that cannot be had."""
    stand_in = typer.Typer()
    anything = {"ignore_unknown_options": True, "allow_extra_args": True}

    @stand_in.command(name, help=text, context_settings=anything)
    def complain() -> None:
        raise PluginError(str(cause)) from cause

    return stand_in
