"""A forecast as it unfolds: GIF by Pillow, MP4 by ffmpeg where that is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import xarray as xr
from PIL import Image

from climlstm.errors import DataError
from climlstm.files import write_whole, writing
from climlstm.plots.colours import Colours
from climlstm.plots.fields import as_field
from climlstm.plots.maps import decorate, draw_values, open_maps
from climlstm.plots.options import Drawing, MapOptions, takes_map_options
from climlstm.plots.output import image_of, palette_of
from climlstm.plots.overlays import draw_contours
from climlstm.plots.selection import channel, choose_init
from climlstm.plots.sheet import set_titles
from climlstm.plots.styles import Look, times_label


@takes_map_options
def animate(
    forecast: xr.Dataset,
    variable: str,
    path: str | os.PathLike[str],
    *,
    init_time: Any = None,
    contours: str | None = None,
    frames_per_second: float = 6.0,
    **options: Unpack[MapOptions],
) -> Path:
    """Write one forecast, lead after lead, as .gif or .mp4; or the times of a cube.

    forecast: (init_time, lead_time, latitude, longitude), or a cube (time, latitude, longitude).
    contours: a channel drawn as lines over the colours.
    options: those of `climlstm.plots.Drawing`; 6 inches wide, if not told otherwise.
    The last frame of a GIF stays for a second. The file is written whole or not at all.
    Raises DataError for another ending, or for .mp4 without ffmpeg.
    """
    target = Path(path)
    if target.suffix.lower() not in (".gif", ".mp4"):
        raise DataError(f"{target}: animations are written as .gif or .mp4.")
    ffmpeg = find_ffmpeg() if target.suffix.lower() == ".mp4" else ""
    fields = _fields(forecast, variable, init_time)
    drawing = Drawing.of({"width": 6.0, **options})
    look = drawing.look(fields[0])
    colours = drawing.colours(look, fields)
    lines = None if contours is None else _fields(forecast, contours, init_time)
    frames = _draw_frames(fields, lines, look, colours, drawing)
    with writing(target), write_whole(target) as path:
        if ffmpeg:
            _write_mp4(frames, path, ffmpeg, frames_per_second)
        else:
            _write_gif(frames, path, palette_of([colours.colormap]), frames_per_second)
    return target


def find_ffmpeg() -> str:
    """The ffmpeg program. Raises DataError with the ways to get it."""
    found = shutil.which("ffmpeg")
    if found is None:
        try:
            from imageio_ffmpeg import get_ffmpeg_exe
        except ImportError as error:
            raise DataError(
                "MP4 needs the program ffmpeg, which is not installed. Install it (or "
                "'pip install imageio-ffmpeg'), or write a .gif, which needs nothing more."
            ) from error
        found = str(get_ffmpeg_exe())
    return found


def _fields(data: xr.Dataset, name: str, init_time: Any) -> Sequence[xr.DataArray]:
    """The frames of a channel in order: leads of one forecast, or times of a cube."""
    series = channel(data, name)
    if "lead_time" in series.dims:
        along = "lead_time"
        if "init_time" in series.dims:
            series = series.sel(init_time=choose_init(data, init_time))
    else:
        along = "time"
    if along not in series.dims:
        raise DataError(
            f"'{name}' has the dimensions {tuple(map(str, series.dims))}; an animation runs along "
            "lead_time, or along time."
        )
    return [as_field(series.isel({along: index})) for index in range(series.sizes[along])]


def _draw_frames(
    fields: Sequence[xr.DataArray],
    lines: Sequence[xr.DataArray] | None,
    look: Look,
    colours: Colours,
    drawing: Drawing,
) -> Iterator[np.ndarray]:
    """Yield the pixels (Y, X, 3) of one frame after another; the map is made once."""
    sheet = open_maps(fields[0], None, drawing)
    [ax] = sheet.flat
    shading = drawing.shading_of(look)
    image = draw_values(ax, fields[0], look.values(fields[0]), colours, shading=shading)
    decorate(ax, drawing)
    sheet.add_bar(0, image, look.label_with_units, colours)
    for index, field in enumerate(fields):
        image.show(look.values(field))
        set_titles(ax, look.label, times_label(field))
        drawn = None
        if lines is not None:
            drawn = draw_contours(ax, lines[index], interval=drawing.contour_interval)
        yield image_of(sheet.figure)[..., :3]
        if drawn is not None:
            drawn.remove()


def _write_gif(
    frames: Iterator[np.ndarray], path: Path, palette: Image.Image, frames_per_second: float
) -> None:
    plain = Image.Dither.NONE
    first, *rest = (Image.fromarray(f).quantize(palette=palette, dither=plain) for f in frames)
    duration = round(1000 / frames_per_second)
    durations = [duration] * len(rest) + [max(1000, duration)]
    first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)


def _write_mp4(
    frames: Iterator[np.ndarray], path: Path, ffmpeg: str, frames_per_second: float
) -> None:
    """H.264 in the pixel format that every browser plays, which needs even sizes."""
    first = next(frames)
    height, width = (size - size % 2 for size in first.shape[:2])
    command = [
        ffmpeg, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", f"{frames_per_second:g}", "-i", "-",
        "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        try:
            for frame in (first, *frames):
                process.stdin.write(np.ascontiguousarray(frame[:height, :width]).tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg gave up: it says why below
        message = process.stderr.read().decode(errors="replace") if process.stderr else ""
    if process.returncode != 0:
        raise OSError(f"ffmpeg failed: {message.strip()[-300:]}")
