"""Whether what a forecast is given from outside is what it was trained with, and enough of it."""

from collections.abc import Iterator

from climlstm.audit.findings import Finding
from climlstm.config import DataConfig


def check_given(data: DataConfig, *, reach: int | None = None) -> Iterator[Finding]:
    """Channels that differ in training and use, forecasts that are simulations, and wide rims.

    reach: cells from which a step of the network takes what it makes of a cell; None: unknown.
    """
    for name, given in data.prescribed.items():
        where = f"data.prescribed.{name}"
        if given.in_training != given.from_:
            yield Finding(
                "prescribed-otherwise-in-training",
                "warning",
                f"The network learns with '{name}' {given.in_training} and forecasts with it from "
                f"'{given.from_}', so it trusts a field that is worse in use",
                where,
                f"training {given.in_training}, forecasts {given.from_}",
                f"Train with what forecasts have: {where}.training={given.from_}"
                if given.from_ in ("observed", "persisted", "climatology")
                else f"Train with what resembles it most: {where}.training=persisted",
            )
        if given.from_ == "observed":
            yield _simulation(where, f"observed {name}")
    if data.boundary is None:
        return
    if data.boundary.from_ == "observed":
        yield _simulation("data.boundary", "an observed boundary")
    if reach is not None and data.boundary.width > 2 * reach:
        yield Finding(
            "rim-wide",
            "warning",
            "The rim of the region is wider than the network sees, so cells are given away",
            "data.boundary.width",
            f"{data.boundary.width} cells; a step of the network reaches {reach}",
            f"Set data.boundary.width={max(1, reach)}, so that the inside still sees the host.",
        )


def _simulation(where: str, knowing: str) -> Finding:
    return Finding(
        "forecast-knows-future",
        "note",
        f"Forecasts are simulations, with {knowing}: stores, tables and reports say so",
        where,
        "from: observed",
        "For what could be known in time, set 'from' to persisted, climatology or forecasts.",
    )
