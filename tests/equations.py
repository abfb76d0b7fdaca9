"""A ConvLSTM layer in NumPy, written without the package from the published equations."""

import numpy as np
import torch

from climlstm.model.convlstm import ConvLSTMLayer
from climlstm.model.geometry import Geometry

REGION = Geometry(4, 5)
GLOBE = Geometry(4, 8, periodic=True, north_pole=True, south_pole=True)


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def randomise(network: torch.nn.Module, scale: float = 0.3) -> None:
    """Weights that make every part of a network count, its head too."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=scale)


def convolve_numpy(field: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Valid cross-correlation of (C, H, W) with (O, C, k, k), by its definition."""
    k = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(field, (k, k), axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows, weight)


def halo_numpy(field: np.ndarray, width: int, geometry: Geometry) -> np.ndarray:
    """(C, H, W) with a rim, by looking up each cell of it."""
    rows, columns = field.shape[1:]
    out = np.zeros((len(field), rows + 2 * width, columns + 2 * width), field.dtype)
    for r in range(-width, rows + width):
        for c in range(-width, columns + width):
            row, column = r, c
            if row < 0 and geometry.north_pole:
                row, column = -row - 1 + geometry.pole_row, column + columns // 2
            elif row >= rows and geometry.south_pole:
                row, column = 2 * rows - 1 - row - geometry.pole_row, column + columns // 2
            if geometry.periodic:
                column %= columns
            if 0 <= row < rows and 0 <= column < columns:
                out[:, r + width, c + width] = field[:, row, column]
    return out


def convlstm_numpy(
    x: np.ndarray, weights: dict[str, np.ndarray], geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states (T, C, H, W) and last cell state of one layer: Shi et al. 2015, eq. 3.

    Written without the package: x is (T, inputs, H, W); weights are by the paper's names,
    biases (C,), peepholes (C, H, W) or (C, 1, 1).
    """

    def sigma(a):
        return 1 / (1 + np.exp(-a))

    hidden, k = weights["hi"].shape[0], weights["hi"].shape[-1]
    h = np.zeros((hidden, *x.shape[2:]))
    c = np.zeros_like(h)
    states = []
    for step in x:
        padded_x, padded_h = halo_numpy(step, k // 2, geometry), halo_numpy(h, k // 2, geometry)

        def gate(name, padded_x=padded_x, padded_h=padded_h):
            return (
                convolve_numpy(padded_x, weights["x" + name])
                + convolve_numpy(padded_h, weights["h" + name])
                + weights["b" + name][:, None, None]
            )

        i = sigma(gate("i") + weights["ci"] * c)
        f = sigma(gate("f") + weights["cf"] * c)
        c = f * c + i * np.tanh(gate("c"))
        o = sigma(gate("o") + weights["co"] * c)
        h = o * np.tanh(c)
        states.append(h)
    return np.stack(states), c


def paper_weights(layer: ConvLSTMLayer) -> dict[str, np.ndarray]:
    """The weights of a layer by the names of eq. 3."""
    named = {}
    for prefix, weight in (
        ("x", layer.input_weight),
        ("h", layer.hidden_weight),
        ("b", layer.bias),
    ):
        for name, part in zip(
            "ifoc", weight.detach().numpy().reshape(4, layer.hidden, -1), strict=True
        ):
            named[prefix + name] = part.reshape(layer.hidden, *weight.shape[1:])
    peephole = np.zeros((3, 1, 1, 1)) if layer.peephole is None else layer.peephole.detach().numpy()
    return named | dict(zip(("ci", "cf", "co"), peephole, strict=True))
