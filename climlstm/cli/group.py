"""Our commands together with those of plugins."""

from typing import Any

import typer
from typer.core import TyperGroup

from climlstm.errors import PluginError
from climlstm.plugins.discovery import discover


class Commands(TyperGroup):
    """Our commands, and those of plugins, which are imported when they are called.

    A plugin's command is a typer app: an entry point of the group climlstm.commands.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return own + sorted({plugin.name for plugin in discover("commands")} - set(own))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        found = [plugin for plugin in discover("commands") if plugin.name == cmd_name]
        if own is not None or not found:
            return own
        try:
            if len(found) > 1:
                raise PluginError(
                    f"The command '{cmd_name}' is offered by several packages: "
                    f"{' and '.join(f'{p.distribution} {p.version}' for p in found)}. Remove all "
                    "but one, or name that one in CLIMLSTM_PLUGINS."
                )
            from climlstm.plugins import load_found  # not for help: it takes half a second

            command = typer.main.get_command(load_found(found[0]))
            command.name = cmd_name  # which help shows, and typer leaves to the group
            return command
        except Exception as error:  # help must not fail because one package is broken
            return typer.main.get_command(_broken(cmd_name, error))


def _broken(name: str, cause: Exception) -> typer.Typer:
    """A command that says why a plugin's own cannot be had."""
    broken = typer.Typer()

    @broken.command(
        name,
        help="(cannot be used; call it to see why)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def complain() -> None:
        raise PluginError(str(cause)) from cause

    return broken
