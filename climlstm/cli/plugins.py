"""The commands `climlstm plugins …`: what is installed, whether it works, and how to begin one."""

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from rich.text import Text

from climlstm.cli.printing import console, print_command, print_table
from climlstm.errors import PluginError, nearest

if TYPE_CHECKING:  # imported when a command needs it, so that 'climlstm --help' stays quick
    from climlstm.plugins import Kind, Plugin, State, Variable

app = typer.Typer(
    no_args_is_help=True,
    help="Variables, losses, evaluators, baselines, models and transforms.",
)

Name = Annotated[
    str, typer.Argument(help="Name, DISTRIBUTION:NAME, or module:attribute with --kind.")
]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", help="variable, loss, evaluator, baseline, model, transform; by default any."
    ),
]


@app.command("list")
def list_plugins(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    load: Annotated[bool, typer.Option("--load", help="Import each, to be sure it works.")] = False,
) -> None:
    """List all installed plugins, built-in ones too, and whether they can be used."""
    from climlstm.plugins import SINGULAR

    kinds: list[Kind | Literal["commands"]] = [*SINGULAR, "commands"]
    rows = [
        {
            "kind": "command" if kind == "commands" else SINGULAR[kind],
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "value": plugin.value,
            "state": state.word,
            "reason": state.reason,
        }
        for kind in kinds
        for plugin, state in _states(kind, load=load)
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    heading = ("kind", "name", "distribution", "version", "state")
    lines = [[*(row[column] for column in heading[:4]), _coloured(row)] for row in rows]
    print_table(heading, lines, numbers_from=5)


def _coloured(row: Mapping[str, str]) -> Text:
    good = row["state"] in ("ok", "found")
    return (
        Text(row["state"]) if good else Text.assemble((row["state"], "red"), f": {row['reason']}")
    )


def _states(
    kind: 'Kind | Literal["commands"]', *, load: bool
) -> Iterator[tuple["Plugin", "State"]]:
    from climlstm import plugins

    found = plugins.discover(kind)
    for plugin in found:
        yield plugin, plugins.state(plugin, found, load=load)


@app.command()
def show(name: Name, kind: KindOption = None) -> None:
    """Show what a plugin is, which options it has, and where it comes from."""
    from climlstm import plugins

    for where, full, of_kind in _meant(name, kind):
        loaded = plugins.load(of_kind, full)
        console.print(Text.assemble((f"{plugins.SINGULAR[of_kind]} {name}", "bold"), f"  {where}"))
        if isinstance(loaded, plugins.Variable):
            console.print(_described(loaded))
            continue
        console.print(textwrap.indent(inspect.getdoc(loaded) or "(no text)", "  "))
        _print_options(getattr(loaded, "Options", loaded))


def _described(variable: "Variable") -> str:
    facts = {
        "long name": variable.long_name,
        "units": variable.units,
        "standard name": variable.standard_name,
        "in ERA5": variable.era5_name,
        "on levels": "yes" if variable.on_levels else None,
        "derived from": ", ".join(variable.inputs) or None,
    }
    text = "\n".join(f"{what}: {fact}" for what, fact in facts.items() if fact)
    doc = inspect.getdoc(variable.derive) if variable.derive else None
    return textwrap.indent(f"{text}\n\n{doc}" if doc else text, "  ")


def _print_options(schema: Any) -> None:
    """Name, type and default of each option of a dataclass or pydantic model."""
    rows = [
        (
            option.name,
            _type_name(option.annotation),
            "required" if option.default is option.empty else repr(option.default),
        )
        for option in inspect.signature(schema).parameters.values()
    ]
    if rows:
        print_table(("option", "type", "default"), rows, numbers_from=3)
    else:
        console.print("  no options", style="dim")


def _type_name(annotation: Any) -> str:
    """The annotation as people write it: `float (gt=0)` for a constrained one."""
    if isinstance(annotation, str):
        return annotation
    if annotation is ...:
        return "..."
    limits = [text for each in getattr(annotation, "__metadata__", ()) for text in _limits(each)]
    plain = getattr(annotation, "__origin__", annotation) if limits else annotation
    if get_origin(plain) in (tuple, list, dict):
        inside = ", ".join(_type_name(each) for each in get_args(plain))
        text = f"{get_origin(plain).__name__}[{inside}]"
    else:
        text = plain.__name__ if isinstance(plain, type) else str(plain)
    for module in ("typing.", "collections.abc."):
        text = text.replace(module, "")
    return f"{text} ({', '.join(limits)})" if limits else text


def _limits(field: Any) -> list[str]:
    names = ("gt", "ge", "lt", "le", "min_length", "max_length", "multiple_of")
    return [
        f"{name}={getattr(limit, name)}"
        for limit in getattr(field, "metadata", [field])
        for name in names
        if getattr(limit, name, None) is not None
    ]


@app.command()
def check(
    name: Name,
    kind: KindOption = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="OPTION=VALUE", help="An option of the plugin.")
    ] = [],  # noqa: B006
) -> None:
    """Test whether a plugin keeps what climlstm asks of its kind."""
    from climlstm import testing
    from climlstm.plugins import SINGULAR

    failures = 0
    for where, full, of_kind in _meant(name, kind):
        console.print(Text.assemble((f"{SINGULAR[of_kind]} {name}", "bold"), f"  {where}"))
        for outcome in testing.check(of_kind, full, _options(set_)):
            colour = {"passed": "green", "failed": "red", "skipped": "yellow"}[outcome.state]
            what = outcome.name.removeprefix("test_").replace("_", " ")
            reason = f": {outcome.reason}" if outcome.reason else ""
            console.print(Text.assemble((f"  {outcome.state:8}", colour), what, reason))
            failures += outcome.state == "failed"
    if failures:
        raise PluginError(
            f"'{name}' fails {failures} check{'s' if failures > 1 else ''}. To work on them, "
            "subclass climlstm.testing in its tests and run pytest."
        )


def _options(settings: list[str]) -> dict[str, Any]:
    """Options from texts such as `power=1.5`; values are YAML, as in a run file."""
    import yaml

    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise PluginError(f"--set {setting} has no '='. Write --set OPTION=VALUE.")
        options[key] = yaml.safe_load(value)
    return options


@app.command()
def new(
    kind: Annotated[
        str, typer.Argument(help="variable, loss, evaluator, baseline, model or transform.")
    ],
    name: Annotated[str, typer.Argument(help="What run files will call it.")],
    parent: Annotated[Path, typer.Option("--in", help="Folder to put the project in.")] = Path(),
) -> None:
    """Write a project for a plugin: package, README and tests that pass."""
    from climlstm.plugins.scaffold import kind_of, new_project

    folder = new_project(kind_of(kind), name, parent)
    console.print(f"wrote {folder}; then:")
    print_command("pip", "install", "-e", str(folder))
    print_command("climlstm", "plugins", "check", name)
    print_command("pytest", str(folder))


def _meant(name: str, kind: str | None) -> list[tuple[str, str, "Kind"]]:
    """Where it is from, its unmistakable name and its kind, for each plugin of that name.

    Raises PluginError where there is none.
    """
    from climlstm import plugins
    from climlstm.plugins.scaffold import kind_of

    kinds = list(plugins.SINGULAR) if kind is None else [kind_of(kind)]
    distribution, _, short = name.rpartition(":")
    meant = [
        (f"{p.value}, {p.distribution} {p.version}", f"{p.distribution}:{p.name}", of_kind)
        for of_kind in kinds
        for p in plugins.discover(of_kind)
        if p.name == short and distribution in ("", p.distribution)
    ]
    if meant:
        return meant
    if kind is not None:
        plugins.load(kinds[0], name)  # module:attribute, or the error that names the nearest
        return [(name, name, kinds[0])]
    names = {p.name for of_kind in kinds for p in plugins.discover(of_kind)}
    raise PluginError(
        f"There is no plugin '{name}' installed.{nearest(short, names)} See 'climlstm plugins "
        "list'; for module:attribute, say which --kind it is."
    )
