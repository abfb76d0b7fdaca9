"""Blocks of memory that the time loop uses again, and never takes from under anybody."""

import torch

from climlstm.model.blocks import SMALL, Blocks

LARGE = (SMALL // 4, 2)


def test_block_is_used_again_when_no_tensor_holds_it():
    blocks = Blocks()
    first = blocks.take(LARGE, torch.float32)
    place = first.data_ptr()
    part = first[1:].view(torch.int32)
    del first
    second = blocks.take(LARGE, torch.float32)
    assert second.data_ptr() != place
    del part
    third = blocks.take((4, SMALL), torch.bfloat16)  # of another size
    assert third.data_ptr() != place
    assert blocks.take((2, SMALL // 2), torch.bfloat16).data_ptr() == place


def test_what_autograd_keeps_is_not_used_again():
    blocks = Blocks()
    weight = torch.ones(LARGE, requires_grad=True)
    field = blocks.take(LARGE, torch.float32).fill_(2.0)
    product = (weight * field).sum()
    del field
    blocks.take(LARGE, torch.float32).fill_(5.0)
    (gradient,) = torch.autograd.grad(product, weight)
    assert gradient.unique().tolist() == [2.0]


def test_unused_blocks_do_not_pile_up():
    blocks = Blocks()
    held = blocks.take(LARGE, torch.float32)
    for factor in range(2, 40):
        blocks.take((factor, *LARGE), torch.float32)
    assert blocks.nbytes <= (39 + 1 + 1) * 4 * held.numel()
    assert torch.equal(held.fill_(1.0).unique(), torch.ones(1))
