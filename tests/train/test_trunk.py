"""A backbone in two parts gives what the whole gives, forwards and backwards; the file of activations."""

import copy

import numpy as np
import pytest
import torch

from dinodemo.train.network import load_folder, tokens
from dinodemo.train.tail.activations import ActivationCache
from dinodemo.train.tail.blocks import Tail, run_trunk

FAMILIES = ("dinov2", "dinov2-registers", "dino-v1", "dinov3")


def parts(folder, size=None):
    module = load_folder(folder).module.eval()
    side = module.config.patch_size * (size or 4)
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    return module, pixels


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_trunk_and_tail_give_what_the_backbone_gives(tiny_folders, family, blocks):
    module, pixels = parts(tiny_folders[family])
    hidden, context = run_trunk(module, pixels, blocks)
    tail = Tail(module, blocks)
    with torch.no_grad():
        whole = tokens(module, pixels)
        split = tail.tokens(hidden, context)
        cls = tail(hidden, context)
    assert all(torch.equal(a, b) for a, b in zip(whole, split, strict=True))
    assert torch.allclose(cls, whole[0], atol=2e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cached_step_has_the_gradients_of_one_through_the_whole_backbone(tiny_folders, family):
    module, pixels = parts(tiny_folders[family])
    other = copy.deepcopy(module)
    tokens(module, pixels)[0].square().mean().backward()
    hidden, context = run_trunk(other, pixels, 2)
    tail = Tail(other, 2)
    tail(hidden, context).square().mean().backward()
    expected = dict(Tail(module, 2).named_parameters())
    learnt = {name for name, value in expected.items() if value.grad is not None and value.grad.abs().max() > 0}
    assert learnt
    for name, value in tail.named_parameters():
        grad = torch.zeros_like(value) if value.grad is None else value.grad
        wanted = torch.zeros_like(value) if expected[name].grad is None else expected[name].grad
        assert torch.allclose(grad, wanted, atol=1e-5), name


def test_a_tail_shares_its_backbones_parameters(tiny_folders):
    module, pixels = parts(tiny_folders["dinov2"])
    tail = Tail(module, 1)
    with torch.no_grad():
        tail.norm.bias += 1
    assert torch.equal(tokens(module, pixels)[0], tail.tokens(*run_trunk(module, pixels, 1))[0])


def test_activations_are_filled_two_views_at_first_and_found_again(tmp_path):
    rows = torch.randn(3, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    cache = ActivationCache(tmp_path, (3, 5, 3, 4), chunk=4)
    order = [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (0, [4]), (1, [4]), (2, [0, 1, 2, 3]), (2, [4])]
    for view, photos in order[:3]:
        assert cache.next_rows() == (view, photos)
        cache.fill(rows[view, photos])
    assert cache.views_of.tolist() == [2, 2, 2, 2, 1] and not cache.complete
    cache.save()
    again = ActivationCache(tmp_path, (3, 5, 3, 4), chunk=4)
    assert (again.done, again.stored) == (0, 3) and again.views_of.sum() == 0
    for view, photos in order[:3]:
        assert torch.allclose(again.pass_over(), rows[view, photos], rtol=1e-3, atol=1e-4)
    assert again.pass_over() is None and again.views_of.tolist() == [2, 2, 2, 2, 1]
    for view, photos in order[3:]:
        assert again.next_rows() == (view, photos)
        again.fill(rows[view, photos])
    assert again.complete
    found = again.get(np.array([0, 2, 1]), np.array([4, 1, 2]))
    assert torch.allclose(found, rows[[0, 2, 1], [4, 1, 2]], rtol=1e-3, atol=1e-4)


def test_activations_of_another_shape_are_not_used(tmp_path):
    cache = ActivationCache(tmp_path, (1, 3, 2, 4))
    cache.fill(torch.ones(3, 2, 4))
    cache.save()
    assert ActivationCache(tmp_path, (2, 3, 2, 4)).stored == 0
