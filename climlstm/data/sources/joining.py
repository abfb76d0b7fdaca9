"""Several files, stores or entries as one Dataset: along time, along another axis, side by side.

Parts may call their axes differently, run the other way, and differ by rounding; they are brought
to the axes and units of the first one. A variable that cannot be joined is left out with the
reason, which whoever asks for it is told: what nobody asks for stops nothing.
"""

import logging
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from climlstm.calendars import calendar_of
from climlstm.data.sources.alignment import UnfitError, align, time_dim
from climlstm.data.sources.fills import FILL_ATTRIBUTES
from climlstm.data.sources.origin import as_dask, follow
from climlstm.data.sources.units import Conversion, conversion
from climlstm.errors import CatalogError, DataError
from climlstm.grid.axes import some

logger = logging.getLogger(__name__)

LEFT_OUT = "left_out"
"""Attribute of a source that lists variables left out, each as 'name: reason'."""

SAME_TIME = 1e-3
"""Part of a time step by which two times may differ and count as one."""

Parts = Sequence[tuple[str, xr.Dataset]]


def join(parts: Parts, where: str, *, declared: Mapping[str, str]) -> xr.Dataset:
    """All parts as one lazy Dataset.

    parts: each with the name of its file or entry. declared: units that the catalog states.
    Raises CatalogError where no variable is left.
    """
    if len(parts) == 1:
        return parts[0][1]
    time = time_dim(parts[0][1])
    left_out: dict[str, str] = {}
    fitting = []
    for label, part in parts:
        try:
            fitting.append((label, follow(part, lambda p: align(p, parts[0][1], time))))
        except UnfitError as reason:
            left_out |= {str(name): f"{label} {reason}" for name in part.data_vars}
    series = []
    for indices, names in _holders(fitting, left_out).items():
        several = [fitting[index] for index in indices]
        for group in _static_or_not(several, names, time):
            reasons = {name: _difference(several, name, declared) for name in group}
            left_out |= {name: why for name, why in reasons.items() if why}
            alike = [name for name in group if not reasons[name]]
            try:
                series += [_joined(several, alike, time)] if alike else []
            except UnfitError as reason:
                left_out |= dict.fromkeys(alike, str(reason))
    source = _side_by_side(series, time, left_out)
    for name, why in left_out.items():
        logger.warning("%s: '%s' is left out: %s.", where, name, why)
    if source is None or not source.data_vars:
        told = "; ".join(f"'{name}': {why}" for name, why in left_out.items())
        raise CatalogError(
            f"{where}: its parts do not fit together: {told or 'they hold no variables'}. "
            "Variables of one name need names of their own ('variables' under metadata), or times "
            "that follow each other on one grid."
        )
    lines = [f"{name}: {why}" for name, why in left_out.items()]
    return source.assign_attrs({LEFT_OUT: lines} if lines else {})


def left_out_of(source: xr.Dataset) -> dict[str, str]:
    """Variables that could not be joined, and why."""
    lines = source.attrs.get(LEFT_OUT, [])
    return dict(line.split(": ", 1) for line in ([lines] if isinstance(lines, str) else lines))


def _holders(parts: Parts, left_out: Mapping[str, str]) -> dict[tuple[int, ...], list[str]]:
    """Variables by the parts that hold them; bounds of cells are not wanted."""
    holders: dict[str, list[int]] = {}
    for index, (_, part) in enumerate(parts):
        bounds = {str(v.attrs.get("bounds") or v.encoding.get("bounds"))
                  for v in part.variables.values()}  # fmt: skip
        for name in map(str, part.data_vars):
            if name not in left_out and name not in bounds:
                holders.setdefault(name, []).append(index)
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, indices in holders.items():
        groups.setdefault(tuple(indices), []).append(name)
    return groups


def _static_or_not(parts: Parts, names: Sequence[str], time: str | None) -> Iterator[list[str]]:
    """Variables that have a time, together, and each of the others by itself."""
    timed = [name for name in names if any(time in part[name].dims for _, part in parts)]
    if timed:
        yield timed
    yield from ([name] for name in names if name not in timed)


def _joined(parts: Parts, names: Sequence[str], time: str | None) -> xr.Dataset:
    """Some variables from all parts that hold them."""
    if len(parts) == 1:
        return parts[0][1][list(names)]
    labels = [label for label, _ in parts]
    datasets = _alike_coordinates(_in_units(parts, names))
    if not any(time in part.dims for part in datasets):
        if all(part.equals(datasets[0]) for part in datasets):
            return datasets[0]
        dims = _differing(datasets)
        if not dims:
            raise UnfitError(f"it differs between {labels[0]} and {labels[1]}")
    elif time in (dims := _differing(datasets)) and len(dims) == 1:
        if len({calendar_of(part[time].values) for part in datasets}) > 1:
            raise UnfitError("its times are in several calendars")
        _check_overlap(labels, [part[time].values for part in datasets])
        whole = xr.concat(
            datasets,
            dim=time,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
        times = whole.indexes[time]
        return whole if times.is_monotonic_increasing else whole.isel({time: times.argsort()})
    if not dims:
        raise UnfitError(f"it is in {labels[0]} and in {labels[1]}, at the same times")
    try:
        return xr.combine_by_coords(  # type: ignore[return-value]
            datasets, data_vars="minimal", coords="minimal", compat="override", join="exact",
            combine_attrs="override",
        )  # fmt: skip
    except ValueError as error:
        raise UnfitError(f"it cannot be put together along {', '.join(dims)} ({error})") from error


def _differing(datasets: Sequence[xr.Dataset]) -> list[str]:
    """Indexes that are not the same in all parts."""
    first = datasets[0].indexes
    return [
        str(name)
        for name, index in first.items()
        if any(name in part.indexes and not part.indexes[name].equals(index) for part in datasets)
    ]


def _alike_coordinates(datasets: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """Without coordinates besides the axes that some part lacks or that differ as scalars."""
    common = set.intersection(*(set(part.coords) for part in datasets))
    unequal = {
        name
        for name in common
        if datasets[0][name].ndim == 0
        and any(not part[name].equals(datasets[0][name]) for part in datasets)
    }
    return [
        part.drop_vars([name for name in part.coords
                        if name not in part.indexes and (name not in common or name in unequal)])
        for part in datasets
    ]  # fmt: skip


def _check_overlap(labels: Sequence[str], times: Sequence[NDArray]) -> None:
    """Raise where two parts hold the same time."""
    owner: dict[Any, int] = {}
    for index, values in enumerate(times):
        twice = [value for value in values.tolist() if value in owner]
        if twice:
            both = np.intersect1d(values, times[owner[twice[0]]])
            raise UnfitError(
                f"{labels[owner[twice[0]]]} and {labels[index]} both have {both.size} times, from "
                f"{some(both[:1])} to {some(both[-1:])}; crop one of them with 'period' under "
                "metadata, in an entry of its own"
            )
        owner.update(dict.fromkeys(values.tolist(), index))


def _difference(parts: Parts, name: str, declared: Mapping[str, str]) -> str | None:
    """Why the values of a variable do not mean the same in all parts and cannot be made to."""
    (first, reference), *others = parts
    ours = reference[name].attrs
    for label, part in others:
        theirs = part[name].attrs
        for key in ("scale_factor", "add_offset"):
            if ours.get(key) != theirs.get(key):
                return (
                    f"it is packed with {key} {ours.get(key)} in {first}, but with "
                    f"{theirs.get(key)} in {label}; leave 'mask_and_scale: false' out"
                )
        meant = [(_time_word(each), each.get("GRIB_stepType")) for each in (ours, theirs)]
        if any(None not in pair and pair[0] != pair[1] for pair in zip(*meant, strict=True)):
            return (
                f"its values stand for other things in time in {first} ({meant[0]}) and in {label} "
                f"({meant[1]}); give each a name of its own, in an entry of its own"
            )
        found, wanted = theirs.get("units"), ours.get("units")
        if found == wanted or (name in declared and None in (found, wanted)):
            continue
        differ = f"it is in '{wanted}' in {first}, but in '{found}' in {label}"
        if found is None or wanted is None:
            return f"{differ}; declare the units of each in an entry of its own"
        try:
            convert = _conversion(theirs, ours)
        except DataError as error:
            return f"{differ}, and {error}"
        if name in declared and not convert.is_identity:
            return (
                f"{differ}, so the declared units '{declared[name]}' cannot hold for both; leave "
                "them out"
            )
    return None


def _time_word(attributes: Mapping[str, Any]) -> str | None:
    """The method in time that `cell_methods` states."""
    found = re.search(r"\btime *: *(\w+)", str(attributes.get("cell_methods", "")))
    return found[1] if found else None


def _conversion(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Conversion:
    """How values with some attributes become values with others; None for units means the same."""
    if found.get("units") is None or wanted.get("units") is None:
        return Conversion()
    return conversion(
        str(found["units"]), str(wanted["units"]), standard_name=wanted.get("standard_name")
    )


def _in_units(parts: Parts, names: Sequence[str]) -> list[xr.Dataset]:
    """Some variables of all parts, in the units of the first and with the fill values of all."""
    first = parts[0][1]
    attributes = {name: dict(first[name].attrs) for name in names}
    for name, attrs in attributes.items():
        for key in FILL_ATTRIBUTES:
            fills = [part[name].attrs[key] for _, part in parts if key in part[name].attrs]
            if any(not np.array_equal(fill, fills[0]) for fill in fills):
                attrs[key] = np.unique(np.concatenate([np.atleast_1d(f) for f in fills])).tolist()
    converted = []
    for label, part in parts:
        part = as_dask(part[list(names)])
        changed = {}
        for name, attrs in attributes.items():
            convert = _conversion(part[name].attrs, attrs)
            changed[name] = part[name].assign_attrs(attrs)
            if not convert.is_identity:
                logger.info("'%s' of %s is converted to '%s'.", name, label, attrs["units"])
                scaled = part[name] * convert.scale + convert.offset
                changed[name] = scaled.assign_attrs(attrs)
        converted.append(part.assign(changed))
    return converted


def _side_by_side(
    series: list[xr.Dataset], time: str | None, left_out: dict[str, str]
) -> xr.Dataset | None:
    """Groups of variables as one Dataset; those of a single time, beside longer ones, have none."""
    timed = [part for part in series if time in part.dims and part.sizes[time] > 1]
    main = max(timed, key=lambda part: len(part.data_vars), default=None)
    if main is not None:
        series = [main, *(part for part in series if part is not main)]
    clashing = _clashing_scalars(series)
    source = None
    for part in (each.drop_vars(clashing & set(each.coords)) for each in series):
        if source is None:
            source = part
            continue
        try:
            source = xr.merge(
                [source, _at_times_of(part, source, time)],
                join="exact",
                compat="override",
                combine_attrs="drop_conflicts",
            )
        except (UnfitError, ValueError) as error:
            left_out |= dict.fromkeys(map(str, part.data_vars), str(error))
    return source


def _at_times_of(part: xr.Dataset, source: xr.Dataset, time: str | None) -> xr.Dataset:
    """A part with the times of the others, from which its own may differ by rounding."""
    if time not in part.indexes or time not in source.indexes:
        return part
    found, wanted = part.indexes[time], source.indexes[time]
    if found.equals(wanted):
        return part
    if found.size == 1 and wanted.size > 1:
        return part.isel({time: 0}, drop=True)
    if found.size == wanted.size and wanted.size > 1:
        off = max(abs(found - wanted))
        if off <= SAME_TIME * min(abs(wanted[1:] - wanted[:-1])):
            return part.assign_coords({time: source[time].variable})
        more = f"differ by up to {off}"
    else:
        more = f"are {found.size}, not {wanted.size}"
    raise UnfitError(
        f"its times {more}: {some(found.to_numpy())}; those of {_names(source)} are "
        f"{some(wanted.to_numpy())}"
    )


def _clashing_scalars(parts: Sequence[xr.Dataset]) -> set[Hashable]:
    """Scalar coordinates that differ (heights of 2 and 10 m): they describe one part only."""
    scalars: dict[Hashable, list[Any]] = {}
    for part in parts:
        for key, coordinate in part.coords.items():
            if coordinate.ndim == 0:
                scalars.setdefault(key, []).append(coordinate.values[()])
    return {key for key, values in scalars.items() if any(v != values[0] for v in values)}


def _names(source: xr.Dataset) -> str:
    return ", ".join(f"'{name}'" for name in source.data_vars)
