"""CUDA graphs in training, on a GPU where there is one, and on CPUs by a stand-in for recording."""

import pytest
import torch

from climlstm.config import load_config
from climlstm.errors import ConfigError
from climlstm.model import saving
from climlstm.training import checkpoint
from climlstm.training.graphs import KEPT, Graphed
from climlstm.training.loop import train
from climlstm.training.storage import run_folder

SETTINGS = ["training.epochs=1", "training.horizon=3", "training.micro_batch=3"]


def weights(config) -> dict[str, torch.Tensor]:
    train(config)
    latest = checkpoint.latest_checkpoint(run_folder(config))
    return saving.load_forecaster(latest)[0].state_dict()


class Recorder:
    """Stands for `torch.cuda.make_graphed_callables`: the same tensors in and out each time, of one
    shape, and gradients in tensors of its own, which the next replay overwrites."""

    def __init__(self) -> None:
        self.recorded: list[tuple[torch.Size, ...]] = []

    def __call__(self, module, samples, *, allow_unused_input):
        self.recorded.append(tuple(each.shape for each in samples))
        parameters = tuple(module.parameters())
        gradients = [torch.empty_like(parameter) for parameter in parameters]
        forecasts: list[torch.Tensor] = []

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, *inputs):
                for sample, given in zip(samples, inputs, strict=False):
                    assert sample.shape == given.shape
                    sample.copy_(given)
                with torch.enable_grad():
                    forecasts[:] = [module(*samples)]
                return forecasts[0].detach()

            @staticmethod
            def backward(ctx, grad):
                found = torch.autograd.grad(
                    forecasts.pop(), parameters, grad, allow_unused=allow_unused_input
                )
                for kept, gradient in zip(gradients, found, strict=True):
                    kept.copy_(torch.zeros_like(kept) if gradient is None else gradient)
                return *[None] * len(samples), *[kept.detach() for kept in gradients]

        return lambda *inputs: Replay.apply(*inputs, *parameters)


@pytest.mark.parametrize("noise", [False, True])
def test_a_recorded_network_learns_what_it_learns_without(small_run, monkeypatch, noise):
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorder)
    noisy = ["model.noise=1", "training.members=2", "training.loss.name=crps"] if noise else []
    plain = small_run("name=plain", *SETTINGS, *noisy)
    graphed = small_run("name=graphed", *SETTINGS, *noisy)
    training = graphed.training.model_copy(update={"cuda_graph": True})  # without a GPU
    expected, got = weights(plain), weights(graphed.model_copy(update={"training": training}))
    for name in expected:
        assert torch.equal(got[name], expected[name]), name
    assert len(recorder.recorded) == len(set(recorder.recorded)) > 2  # as the horizon grows


def test_only_the_last_recordings_are_kept(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorder)
    network = Graphed(torch.nn.Linear(3, 2))
    for batch in (4, 2, 4, 5, 4, 2):
        x = torch.randn(batch, 3)
        torch.testing.assert_close(network(x), network.forecaster(x))
        assert len(network._recordings) <= KEPT
    assert [shape[0][0] for shape in recorder.recorded] == [4, 2, 5, 2]
    with torch.no_grad():
        assert network(torch.randn(7, 3)).shape == (7, 2)
    assert len(recorder.recorded) == 4


def test_graphs_without_a_gpu_are_refused(run_file):
    with pytest.raises(ConfigError, match=r"cluster\.gpu"):
        load_config(run_file, ["training.cuda_graph=true"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_recorded_network_learns_on_a_gpu(small_run):
    gpu = [*SETTINGS, "cluster.gpu=true", "training.precision=float32"]
    plain = weights(small_run("name=plain", *gpu))
    graphed = weights(small_run("name=graphed", *gpu, "training.cuda_graph=true"))
    for name in plain:
        torch.testing.assert_close(graphed[name], plain[name], atol=1e-4, rtol=1e-3)
