"""A first run on a source: its catalog entry and its run file, with comments, accepted by check."""

import os
import re
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml

from climlstm.advice import command, declarations, one_line
from climlstm.audit.plausibility import RANGES
from climlstm.config import Config, load_config
from climlstm.config.plain_yaml import load_yaml
from climlstm.data.inspect import Inspection, inspect, open_named
from climlstm.data.run_data import RunData
from climlstm.data.sources.axes import find_axes
from climlstm.data.sources.files import driver_of
from climlstm.data.sources.units import conversion
from climlstm.data.store.memory import free_memory
from climlstm.data.words import seconds_in_words
from climlstm.environment import usable_cores
from climlstm.errors import ClimLSTMError, ConfigError, DataError
from climlstm.files import temporary_folder, write_text, writing
from climlstm.grid import Plane, kind_of
from climlstm.plugins.channels import channel
from climlstm.runs.checking import check_run
from climlstm.runs.proposal import RUN_FILE as RUN
from climlstm.runs.proposal import Proposal, propose, run_text
from climlstm.steps import as_times
from climlstm.training.speed import seconds_per_batch
from climlstm.training.untrained import count_parameters, sketch_forecaster

CATALOG = "catalog.yaml"

PLACEHOLDERS = ("UNIT", "NAME")
"""Words in a line of advice for which somebody has to put the right one."""

ROUNDS = 8
"""Lines of advice that are followed, at most."""

FIRST_RUN = 300.0
"""Seconds that the training of a first run may take."""

FEWEST_EPOCHS = 3

BATCH_SHARE = 0.4
"""Share of the free memory that a batch may take."""


@dataclass(frozen=True)
class Started:
    """Files that were written for a first run, and what is known of it."""

    run_file: Path
    catalog: Path | None
    """The catalog; None where the source is in one already."""
    found: Inspection
    assumed: tuple[str, ...]
    """Declarations that were added to the catalog, each with the reason."""
    parameters: int
    duration: str
    """Estimated time of the training on this machine, in words."""


def init(source: str, out: str | Path = ".", *, declare: Iterable[str] = ()) -> Started:
    """Write a catalog and a run file for a source, which `check` accepts; nothing is overwritten.

    source: path, pattern or URL of a Zarr store, NetCDF or GRIB files; or 'catalog.yaml:NAME', of
        which only a run file is made.
    out: folder for the files. declare: lines for the catalog's metadata, 'select: {member: 3}'.
    Raises a ClimLSTMError where the source cannot be used as it is, with the line that helps.

    >>> import climlstm
    >>> started = climlstm.init("catalog.yaml:atmosphere", "first")
    >>> climlstm.load_config(started.run_file).data.state
    ('msl', 't850', 'u10', 'v10', 'z500', 'z200')
    """
    folder = Path(out)
    is_listed = ".yaml:" in source or ".yml:" in source
    names = [RUN] if is_listed else [CATALOG, RUN]
    _check_free([folder / name for name in names])
    metadata = _declared(declare)
    if is_listed and metadata:
        raise ConfigError(f"'{source}' is in a catalog. Write into it what is to be declared.")
    with writing(folder / RUN):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder, ".init-") as draft:
            made = _Draft(source, is_listed, folder, draft, metadata)
            try:
                made.settle()
            except ClimLSTMError as error:  # which names files that nobody will see
                raise type(error)(str(error).replace(f"{draft}{os.sep}", "")) from error
            for name in names:
                write_text(folder / name, (draft / name).read_text(encoding="utf-8"))
    return Started(
        folder / RUN,
        None if is_listed else folder / CATALOG,
        made.found,
        tuple(made.assumed),
        made.parameters,
        seconds_in_words(made.seconds),
    )


def _check_free(files: Iterable[Path]) -> None:
    for file in files:
        if file.exists():
            raise ConfigError(
                f"{file} exists already, and nothing is overwritten. Name another folder with "
                "--out, or move it."
            )


def _declared(lines: Iterable[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for line in lines:
        try:
            read = load_yaml(line)
        except yaml.YAMLError as error:
            raise ConfigError(f"--declare {line}: not valid YAML: {error}") from error
        if not isinstance(read, dict):
            raise ConfigError(
                f"--declare {line}: expected a line of a catalog's metadata, such as "
                "'select: {member: 3}'."
            )
        _merge(metadata, read)
    return metadata


def _merge(metadata: dict[str, Any], more: Mapping[str, Any]) -> bool:
    """Add declarations to others, which stay as they are; whether there was anything new."""
    new = False
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(metadata.setdefault(key, {}), dict):
            new |= _merge(metadata[key], value)
        elif key not in metadata or metadata[key] == {}:
            metadata[key] = value
            new = True
    return new


class _Draft:
    """Catalog and run file in the making: what check refuses is declared, as its errors advise."""

    def __init__(
        self, source: str, is_listed: bool, folder: Path, draft: Path, metadata: dict[str, Any]
    ) -> None:
        self.source, self.is_listed = source, is_listed
        self.folder, self.draft = folder, draft
        self.metadata = metadata
        self.assumed: list[str] = []
        self.found: Inspection
        self.parameters, self.seconds = 0, 0.0
        catalog, _, name = source.rpartition(":")
        self.name = name if is_listed else _name_for(source)
        self.catalog = catalog if is_listed else str(draft / CATALOG)

    def settle(self) -> None:
        """Write the files. Raises a ClimLSTMError that tells what has to be declared by hand."""
        refusal = None
        for _ in range(ROUNDS):
            if not self.is_listed:
                self._write_catalog()
            named = self.source if self.is_listed else f"{self.catalog}:{self.name}"
            self.found = replace(inspect(named), name=self.source)
            source = open_named(named)
            if self._follow(self.found.problems) or self._guess_units(source):
                continue
            proposal = self._propose(source)
            self._write_run(proposal, _absolute(self.catalog))
            config = load_config(self.draft / RUN)
            refused = [str(finding) for finding in check_run(config, quick=True).errors]
            if not refused:
                self._finish(config, proposal)
                return
            refusal = "\n".join(refused)
            if not self._follow(refused):
                break
        raise DataError(
            f"'{self.source}' cannot be used as it is. {refusal or ' '.join(self.found.problems)}\n"
            "Put lines for the catalog into --declare."
        )

    def _propose(self, source: xr.Dataset) -> Proposal:
        axes = find_axes(source)
        return propose(
            self.found,
            source,
            as_times(axes.time),
            (axes.latitude.size, axes.longitude.size),
            memory=int(BATCH_SHARE * _memory()),
            on_earth=kind_of(axes.latitude) is not Plane,
        )

    def _follow(self, messages: Iterable[str]) -> bool:
        """Declare what messages advise, and say so; whether there was anything new."""
        if self.is_listed:
            return False
        new = False
        for message in messages:
            lines = declarations(message)[:1]  # others are alternatives
            for line in lines:
                unclear = any(word in str(line) for word in PLACEHOLDERS)
                if not unclear and _merge(self.metadata, line):
                    self.assumed.append(f"{one_line(line)}: {message.split('. ')[0]}")
                    new = True
        return new

    def _guess_units(self, source: xr.Dataset) -> bool:
        """Declare units that files lack, where values allow only one; whether there was any."""
        new = False
        for facts in self.found.variables if not self.is_listed else ():
            if facts.units is not None or facts.could_be is None:
                continue
            middle = {dim: size // 2 for dim, size in facts.sizes.items()}
            last_two = list(facts.sizes)[-2:]
            values = source[facts.name].isel({d: i for d, i in middle.items() if d not in last_two})
            units = _units_of(np.asarray(values), facts.could_be)
            if units and _merge(self.metadata, {"variables": {facts.name: {"units": units}}}):
                self.assumed.append(f"'{facts.name}' has no units; its values are those of {units}")
                new = True
        return new

    def _finish(self, config: Config, proposal: Proposal) -> None:
        """Write both files for good, with fewer epochs where training would take long."""
        cube = RunData(config).cube
        self.parameters = count_parameters(sketch_forecaster(config, cube))
        an_epoch = seconds_per_batch(config, cube) * proposal.batches
        epochs = min(proposal.epochs, max(round(FIRST_RUN / an_epoch), FEWEST_EPOCHS))
        self.seconds = an_epoch * epochs
        machine = "a GPU" if config.cluster.gpu else f"{usable_cores()} cores"
        note = f"{seconds_in_words(self.seconds)} on {machine}"
        if epochs < proposal.epochs:
            note += f"; {proposal.epochs} would be better"
        if not self.is_listed:
            self._write_catalog(final=True)
        self._write_run(replace(proposal, epochs=epochs), self._final_catalog(), note=note)

    def _final_catalog(self) -> str:
        if not self.is_listed:
            return CATALOG
        if "://" in self.catalog:
            return self.catalog
        return os.path.relpath(self.catalog, self.folder)

    def _write_catalog(self, *, final: bool = False) -> None:
        entry: dict[str, Any] = {
            "description": f"proposed by {command('climlstm', 'init', self.source)}",
            "driver": driver_of(self.source, f"The source '{self.source}'"),
            "args": {"urlpath": self._place(final=final)},
        }
        lines = [f"# Catalog for climlstm: what '{self.name}' is, and what its files leave out."]
        lines += [line for why in self.assumed for line in _comment(f"assumed: {why}")]
        if self.metadata:
            entry["metadata"] = self.metadata
        text = yaml.safe_dump({"sources": {self.name: entry}}, sort_keys=False, allow_unicode=True)
        write_text(self.draft / CATALOG, "\n".join([*lines, text]))

    def _place(self, *, final: bool) -> str:
        """Path or URL of the files; where they lie below the catalog's folder, relative to it."""
        place, folder = _absolute(self.source), os.path.abspath(self.folder)
        if final and place.startswith(folder + os.sep):
            return "{{ CATALOG_DIR }}/" + os.path.relpath(place, folder).replace(os.sep, "/")
        return place

    def _write_run(self, proposal: Proposal, catalog: str, *, note: str = "") -> None:
        times, parameters = str(self.found.times), self.parameters
        text = run_text(proposal, catalog, self.name, times=times, parameters=parameters, note=note)
        write_text(self.draft / RUN, text)


def _absolute(place: str) -> str:
    return place if "://" in place else os.path.abspath(place)


def _memory() -> int:
    """Free bytes where the batch will be."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    return free_memory()


def _name_for(source: str) -> str:
    """A name for an entry and a run: that of the file, or of the folder where it is a pattern."""
    *folders, last = source.split("?")[0].rstrip("/").split("/")
    stem = re.split(r"[.*\[]", last)[0] or "".join(folders[-1:])
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-") or "source"


def _units_of(values: np.ndarray, name: str) -> str | None:
    """The unit in which values are plausible for a variable of ours; None if several are."""
    variable = channel(name).variable
    expected = RANGES.get(variable.standard_name or "")
    finite = values[np.isfinite(values)]
    if expected is None or not finite.size:
        return None
    ends = np.percentile(finite, (1, 99))
    fitting = []
    for units in (variable.units, *expected.others):
        to_ours = conversion(units, variable.units, standard_name=variable.standard_name)
        if expected.holds(*(to_ours.scale * ends + to_ours.offset)):
            fitting.append(units)
    certain = len(fitting) == 1 or fitting[:1] == ["1"]  # a mask in percent would reach 100
    return fitting[0] if certain else None


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 98, initial_indent="# ", subsequent_indent="#   ")
