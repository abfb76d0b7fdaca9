import pytest
import torch

from climlstm.model.convlstm import ConvLSTM
from climlstm.model.diffusion import HorizontalDiffusion
from climlstm.model.geometry import Geometry

torch.set_num_threads(1)

GLOBE = Geometry(6, 8, periodic=True, north_pole=True, south_pole=True, sign=(1, -1))
REGION = Geometry(6, 8)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def diffusion(geometry: Geometry, scale: torch.Tensor | None = None) -> HorizontalDiffusion:
    made = HorizontalDiffusion(2, geometry, scale)
    with torch.no_grad():
        made.weight.copy_(randn(2, 8) / 10)
    return made


def test_cells_take_up_differences_to_their_neighbours():
    made = diffusion(REGION)
    weight = made.weight.detach().reshape(2, 8)
    state = randn(1, 2, 6, 8)
    around = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    for row, column in ((2, 3), (0, 0), (5, 4)):
        expected = state[0, :, row, column].clone()
        for k, (down, right) in enumerate(around):
            y, x = row + down, column + right
            if 0 <= y < 6 and 0 <= x < 8:  # beyond the edges is nothing to exchange
                expected += weight[:, k] * (state[0, :, y, x] - state[0, :, row, column])
        torch.testing.assert_close(made(state)[0, :, row, column], expected)


@pytest.mark.parametrize("geometry", [GLOBE, REGION])
def test_what_has_no_differences_stays(geometry):
    made, flat = diffusion(geometry), torch.full((1, 2, 6, 8), 3.0)
    changed = made(flat)
    torch.testing.assert_close(changed[:, 0], flat[:, 0])
    inside = changed[:, 1, 1:-1] if geometry is GLOBE else changed[:, 1]
    torch.testing.assert_close(inside, torch.full_like(inside, 3.0))  # at poles a wind turns round


def test_untrained_it_changes_nothing():
    state = randn(2, 2, 6, 8)
    assert torch.equal(HorizontalDiffusion(2, GLOBE)(state), state)


def test_cells_without_values_neither_change_nor_leak():
    scale = torch.ones(2, 6, 8)
    scale[0, 2:4, 3:5] = 0
    made, state = diffusion(GLOBE, scale), randn(1, 2, 6, 8)
    other = state.clone()
    other[0, 0, 2:4, 3:5] = 100.0
    changed, with_other = made(state), made(other)
    assert torch.equal(changed[0, 0, 2:4, 3:5], state[0, 0, 2:4, 3:5])
    assert torch.equal(with_other[0, 0, 2:4, 3:5], other[0, 0, 2:4, 3:5])
    observed = scale[0] > 0
    assert torch.equal(changed[0, 0][observed], with_other[0, 0][observed])
    assert not torch.equal(changed[0, 0][observed], state[0, 0][observed])


def test_a_network_has_it_unless_told_otherwise():
    network = ConvLSTM(2, 1, 0, history=1, geometry=GLOBE, hidden=(3,))
    history, forcing = randn(1, 1, 2, 6, 8), randn(1, 2, 1, 6, 8)
    assert torch.equal(next(network.steps(history, forcing)), history[:, 0])
    with torch.no_grad():
        network.diffusion.weight.fill_(0.1)
    first, second = network.steps(history, forcing)
    torch.testing.assert_close(first, network.diffusion(history[:, 0]))
    torch.testing.assert_close(second, network.diffusion(first))
    without = ConvLSTM(2, 1, 0, history=1, geometry=GLOBE, hidden=(3,), diffusion=False)
    assert without.diffusion is None


def test_networks_from_before_have_none():
    network = ConvLSTM(2, 1, 0, history=1, geometry=REGION, hidden=(3,))
    with torch.no_grad():
        network.diffusion.weight.fill_(0.1)
    state = network.state_dict()
    del state["diffusion.weight"]
    network.load_state_dict(state)
    assert not network.diffusion.weight.any()
