"""Runs a notebook on the demo's files and keeps what it shows, small enough for a repository.

    python docs/stored.py 01_forecast_maps      # in the folder that holds demo/

Pictures keep the colours of their palette, or 128. Sliders, which need a running notebook, and
long animations are left out.
"""

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LARGEST = 600_000
"""Bytes of an animation that is kept, in base64."""


def run(name: str, folder: Path) -> None:
    """Execute a notebook in a folder and store it with its outputs."""
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1200, resources=resources)
    client.execute(env=os.environ | {"COLUMNS": "100"})
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        kept = [slim(output, folder) for output in cell.get("outputs", [])]
        cell.outputs = [output for output in kept if output] if cell.cell_type == "code" else []
        if cell.cell_type != "code":
            del cell["outputs"]
    nbformat.write(notebook, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def slim(output: Any, folder: Path) -> Any:
    """An output with fewer colours and without this machine's paths; None where nothing is left."""
    if output.output_type == "stream":
        output.text = anywhere(output.text, folder)
        return output if output.name == "stdout" and output.text.strip() else None
    data = output.get("data", {})
    live = data.pop("application/vnd.jupyter.widget-view+json", None)
    if live is not None or not data.get("text/plain", "").strip():
        return None  # each has a plain text, unless there is nothing to show
    if "image/png" in data:
        data["image/png"] = fewer_colours(data["image/png"])
    if len(data.get("image/gif", "")) > LARGEST:
        return nbformat.v4.new_output("stream", text="(an animation, shown when it is run)\n")
    for kind in ("text/html", "text/plain"):
        if kind in data:
            data[kind] = anywhere(data[kind], folder)
    return output


def anywhere(text: str, folder: Path) -> str:
    """A text without colours of terminals and without the folders of this machine."""
    scratch = rf"{re.escape(tempfile.gettempdir())}/(climlstm-[a-z]+)-\w{8}"
    text = re.sub(r"\x1b\[[\d;]*m", "", re.sub(scratch, r"/tmp/\1", text))
    return text.replace(f"{folder}/", "").replace(str(folder), ".")


def fewer_colours(picture: str) -> str:
    """A PNG in base64 with a palette; its own, where it has one, has the colours of its maps."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    if image.mode == "P":
        return picture
    image = image.convert("RGB")
    image.thumbnail((1400, 1400))
    packed = io.BytesIO()
    image.quantize(128, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


if __name__ == "__main__":
    for each in sys.argv[1:]:
        run(each, Path.cwd())
