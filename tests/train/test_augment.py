"""Crops and colours against Pillow, and the statistics of what is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from dinodemo.train.augment import MultiCrop, draw_boxes, resample
from dinodemo.train.colour import affine, change_bytes, change_floats, draw_colours, gaussian_blur


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def apply_colours(crops, params):
    """Change float crops through the way of accelerators, whose input is bytes only at the very start."""
    return change_floats(crops * 255, params)


def photo(h=120, w=90, seed=0) -> Image.Image:
    """Return a smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 255, (h // 10, w // 10, 3), np.uint8)
    return Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def plain(n=1, **changes):
    """Return parameters that change nothing but what is given."""
    params = draw_colours(n, 0.0, 0.0, 0.0, generator())
    for name, value in changes.items():
        getattr(params, name)[:] = torch.as_tensor(value)
    return params


@pytest.mark.parametrize("box", [(0, 0, 120, 90), (13, 7, 80, 61), (100, 40, 20, 50)])
@pytest.mark.parametrize("size", [24, 64])
def test_resampling_is_pillows(box, size):
    top, left, h, w = box
    ours = resample([tensor(photo())], torch.tensor([box]), size)[0].permute(1, 2, 0).numpy().astype(int)
    cut = photo().crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)
    difference = np.abs(ours - np.asarray(cut, int))
    assert difference.max() <= 2 and difference.mean() < 0.2


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("brightness", ImageEnhance.Brightness),
        ("contrast", ImageEnhance.Contrast),
        ("saturation", ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_jitter_is_pillows(name, enhance, factor):
    ours = apply_colours(tensor(photo())[None].float() / 255, plain(**{name: factor}))[0] * 255
    theirs = tensor(enhance(photo()).enhance(factor)).float()
    assert (ours - theirs).abs().max() <= 2


def test_grey_and_solarise_are_pillows():
    crops = tensor(photo())[None].float() / 255
    grey = tensor(ImageOps.grayscale(photo()).convert("RGB")).float()
    assert (apply_colours(crops, plain(grey=True))[0] * 255 - grey).abs().max() <= 1
    turned = tensor(ImageOps.solarize(photo(), 128)).float()
    assert (apply_colours(crops, plain(solarise=True))[0] * 255 - turned).abs().max() <= 0.01


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.9])
def test_blur_is_the_gaussian_of_nine_pixels(sigma):
    crop = tensor(photo(30, 40)).float() / 255
    taps = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(crop.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect")
    slow = sum(a * b * padded[:, i : i + 30, j : j + 40] for i, a in enumerate(taps) for j, b in enumerate(taps))
    np.testing.assert_allclose(gaussian_blur(crop[None], torch.tensor([sigma]))[0], slow, atol=1e-5)


def test_only_crops_with_a_sigma_are_blurred():
    crops = torch.rand(3, 3, 16, 16, generator=generator())
    params = plain(3, sigma=[0.0, 1.0, 0.0])
    changed = apply_colours(crops, params)
    torch.testing.assert_close(changed[[0, 2]], crops[[0, 2]])
    assert (changed[1] - crops[1]).abs().max() > 0.05


def test_both_ways_of_changing_colours_agree():
    crops = torch.stack([tensor(photo(64, 64, seed=i)) for i in range(12)])
    params = draw_colours(12, 1.0, 0.5, 0.3, generator(8))
    assert (params.sigma > 0).any() and params.solarise.any() and params.grey.any()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    mirrored, out = [2, 5], torch.empty(crops.shape)
    change_bytes(crops, params, mirrored, mean, std, out)
    slow = change_floats(crops, params)
    slow[mirrored] = slow[mirrored].flip(-1)
    difference = ((out * std + mean - slow) * 255).abs()
    # a byte at solarise's threshold may fall on either side of it
    assert difference.median() < 1 and (difference > 2).float().mean() < 0.01


def test_hue_turns_colours_and_leaves_grey_and_brightness():
    crops = torch.rand(1, 3, 8, 8, generator=generator())
    weights = torch.tensor([0.299, 0.587, 0.114])
    for turn, moved in ((0.1, True), (1.0, False)):
        matrix, offset = affine(plain(hue=turn), crops.mean(dim=(2, 3)))
        ours = torch.einsum("ij,jhw->ihw", matrix[0], crops[0]) + offset[0][:, None, None]
        torch.testing.assert_close(
            torch.einsum("c,chw->hw", weights, ours), torch.einsum("c,chw->hw", weights, crops[0]), atol=1e-3, rtol=0
        )
        assert ((ours - crops[0]).abs().max() > 0.02) == moved
        torch.testing.assert_close(matrix[0] @ torch.ones(3), torch.ones(3), atol=1e-3, rtol=0)


def test_the_joined_map_is_the_steps_one_after_the_other():
    crops = 0.4 + 0.1 * torch.rand(6, 3, 9, 9, generator=generator())  # far from the bounds, where nothing is cut
    params = draw_colours(6, 1.0, 0.0, 0.0, generator(3))
    names = ["brightness", "contrast", "saturation", "hue"]
    for i in range(6):
        step = crops[i : i + 1]
        for which in params.order[i].tolist():
            one = plain(**{names[which]: getattr(params, names[which])[i]})
            step = apply_colours(step, one)
        if params.grey[i]:
            step = apply_colours(step, plain(grey=True))
        torch.testing.assert_close(apply_colours(crops, params)[i], step[0], atol=1e-5, rtol=1e-4)


def test_boxes_lie_inside_and_have_the_asked_areas_and_aspects():
    boxes = draw_boxes([(300, 400)] * 4000, (0.05, 0.32), generator()).double()
    top, left, h, w = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 300).all() and (left + w <= 400).all()
    area = h * w / (300 * 400)
    assert area.min() > 0.045 and area.max() < 0.33 and area.mean() == pytest.approx(0.185, abs=0.005)
    assert (w / h).min() > 0.73 and (w / h).max() < 1.37 and (w / h).log().mean().abs() < 0.02
    assert float((top / (300 - h).clamp_min(1)).mean()) == pytest.approx(0.5, abs=0.03)


def test_a_box_that_cannot_fit_is_the_middle():
    assert draw_boxes([(20, 2000)], (0.9, 1.0), generator()).tolist() == [[0, 986, 20, 27]]
    assert draw_boxes([(1, 1)], (0.3, 1.0), generator()).tolist() == [[0, 0, 1, 1]]


def test_chances_of_the_changes():
    params = draw_colours(4000, 1.0, 0.5, 0.2, generator())
    assert float((params.brightness != 1).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float(params.grey.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert float((params.sigma > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(params.solarise.float().mean()) == pytest.approx(0.2, abs=0.02)
    assert params.sigma.max() <= 2.0 and params.brightness.min() >= 0.6 and params.hue.abs().max() <= 0.1
    assert sorted({tuple(o) for o in params.order.tolist()}).__len__() == 24
    still = draw_colours(100, 0.0, 0.0, 0.2, generator())
    assert (still.brightness == 1).all() and not still.grey.any() and not still.solarise.any()


def test_multicrop_gives_normalised_views_that_the_generator_decides():
    images = [tensor(photo(seed=i)) for i in range(3)]
    crop = MultiCrop(global_size=56, local_size=28, n_local=4)
    views, local = crop(images, generator(1))
    assert views.shape == (2, 3, 3, 56, 56) and local.shape == (4, 3, 3, 28, 28)
    again, _ = crop(images, generator(1))
    other, _ = crop(images, generator(2))
    assert torch.equal(views, again) and not torch.equal(views, other)
    assert 0.2 < views.std() < 2 and views.abs().max() < 3


def test_without_changes_a_whole_crop_is_the_photo_normalised():
    image = photo(80, 80)
    crop = MultiCrop(1, 40, (1.0, 1.0), 0, flip=False, colour=0.0, blur=False, mean=(0.5,) * 3, std=(0.25,) * 3)
    (view,), local = crop([tensor(image)], generator())
    small = tensor(image.resize((40, 40), Image.Resampling.BICUBIC)).float() / 255
    assert len(local) == 0
    # the box's aspect is random, so it may be cut by a few pixels
    assert (view[0] - (small - 0.5) / 0.25).abs().mean() < 0.35


def test_half_of_the_crops_are_mirrored():
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64) * 4
    crop = MultiCrop(1, 32, (0.5, 1.0), 0, colour=0.0, blur=False)
    (views,), _ = crop([ramp] * 200, generator())
    mirrored = (views[..., 0].mean(dim=(1, 2)) > views[..., -1].mean(dim=(1, 2))).float().mean()
    assert float(mirrored) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("options", [{"global_scale": (0.0, 1.0)}, {"local_scale": (0.5, 0.1)}, {"colour": 2.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        MultiCrop(**options)
