"""The variable that radars see: an entry point of `climlstm.variables`."""

from climlstm import Style, Variable

RAIN_RATE = Variable(
    "rain_rate",
    "Rain rate",
    units="mm h-1",
    standard_name="rainfall_rate",
    aliases=("rainrate", "rain_rate", "precipitation_rate", "prate"),
    style=Style(units="mm h-1", colormap="YlGnBu", limits=(0, 20)),
)
