"""Memory that the time loop uses again, and never takes from under anybody."""

import torch

from climlstm.model.kernels.memory import LINE, SMALL, ReusedMemory

LARGE = (SMALL // 4, 2)


def test_buffer_is_used_again_when_no_tensor_holds_it():
    buffers = ReusedMemory()
    first = buffers.take(LARGE, torch.float32)
    place = first.data_ptr()
    assert place % LINE == 0
    part = first[1:].view(torch.int32)
    del first
    second = buffers.take(LARGE, torch.float32)
    assert second.data_ptr() != place
    del part
    third = buffers.take((4, SMALL), torch.bfloat16)  # larger than what is free
    assert third.data_ptr() != place
    assert buffers.take((2, SMALL // 2), torch.bfloat16).data_ptr() == place


def test_the_least_buffer_that_suffices_is_used():
    buffers = ReusedMemory()
    sizes = [buffers.take((factor, *LARGE), torch.float32) for factor in (4, 2, 3)]
    places = [each.data_ptr() for each in sizes]
    del sizes
    both = [buffers.take((2, *LARGE), torch.float32) for _ in range(2)]
    assert [each.data_ptr() for each in both] == [places[1], places[2]]


def test_what_autograd_keeps_is_not_used_again():
    buffers = ReusedMemory()
    weight = torch.ones(LARGE, requires_grad=True)
    field = buffers.take(LARGE, torch.float32).fill_(2.0)
    product = (weight * field).sum()
    del field
    buffers.take(LARGE, torch.float32).fill_(5.0)
    (gradient,) = torch.autograd.grad(product, weight)
    assert gradient.unique().tolist() == [2.0]


def test_unused_buffers_do_not_pile_up():
    buffers = ReusedMemory()
    held = buffers.take(LARGE, torch.float32)
    for factor in range(2, 40):
        buffers.take((factor, *LARGE), torch.float32)
    assert buffers.nbytes <= (39 + 1 + 1) * 4 * held.numel()
    assert torch.equal(held.fill_(1.0).unique(), torch.ones(1))
