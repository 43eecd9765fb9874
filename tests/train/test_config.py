"""FinetuneConfig: what it refuses, what it chooses, and that explicit settings win."""

import dataclasses
import json

import pytest

from dinodemo.train import FinetuneConfig
from dinodemo.train.config import explanations, parse_set
from dinodemo.train.rules import ANY


def test_it_survives_json():
    config = FinetuneConfig(lr=3e-4, global_scale=(0.4, 0.9), shared_head=True)
    assert FinetuneConfig.from_dict(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("wrong", "near"), [("lerning_rate", None), ("batchsize", "batch_size"), ("ibot_weigth", "ibot_weight")]
)
def test_a_misspelt_setting_is_named_with_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"no setting '{wrong}'" + (f".*did you mean '{near}'" if near else "")):
        FinetuneConfig.from_dict({wrong: 1})
    with pytest.raises(ValueError, match=wrong):
        FinetuneConfig.for_dataset(100, "dinov2-small", "cpu", **{wrong: 1})
    with pytest.raises(ValueError, match=wrong):
        parse_set([f"{wrong}=1"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ibot_weight": 1.0, "mask_probability": 0.0}, "mask_probability"),
        ({"batch_size": 2, "mask_probability": 0.1}, "mask_probability"),
        ({"dino_weight": 0, "ibot_weight": 0, "koleo_weight": 0, "gram_weight": 0}, "nothing to learn"),
        ({"head_warmup": 0.6, "thaw": 0.6}, "head_warmup 0.6 and thaw 0.6"),
        ({"dino_weight": 0, "ibot_weight": 0, "head_warmup": 0.1}, "head_warmup trains the heads"),
        ({"head_warmup": 1.0, "thaw": 0.0}, "head_warmup 1"),
        ({"min_lr": 1.0}, "min_lr"),
        ({"shard": True, "compile": True}, "shard and compile"),
        ({"holdout": 0.8}, "holdout"),
        ({"dino_weight": 1, "n_local": 0, "centering": "none"}, "centering must be one of sinkhorn, softmax, off"),
        ({"momentum_start": 1.5}, "momentum_start must lie between 0 and 1"),
        ({"batch_size": 0}, "batch_size must be above 0"),
        ({"clip": -1.0}, "clip must be 0 or more"),
        ({"lr": float("nan")}, "lr must be a finite number"),
        ({"global_scale": (0.9, 0.3)}, "global_scale"),
        ({"backbone": "scratch", "head_warmup": 0.1, "thaw": 0.0}, "head_warmup"),
        ({"backbone": "scratch", "head_warmup": 0, "thaw": 0, "gram_weight": 1}, "gram_weight"),
        ({"backbone": "scratch", "scratch_width": 100, "scratch_heads": 3}, "scratch_width"),
    ],
)
def test_contradictions_name_the_field(settings, named):
    with pytest.raises(ValueError, match=named):
        FinetuneConfig.from_dict(settings)


def test_settings_from_the_command_line_get_their_types():
    pairs = ["lr=1e-4", "global_scale=0.4,1", "shared_head=true", "prototypes=1e3", "centering = off"]
    expected = {"lr": 1e-4, "global_scale": (0.4, 1.0), "shared_head": True, "prototypes": 1000, "centering": "off"}
    assert parse_set(pairs) == expected


@pytest.mark.parametrize("pair", ["batch_size=1.5", "lr=fast", "flip=maybe", "mask_ratio=0.1", "lr", "seed=inf"])
def test_values_of_another_type_are_refused(pair):
    with pytest.raises(ValueError, match=pair.partition("=")[0]):
        parse_set([pair])


def test_setting_a_field_twice_or_two_lengths_is_refused():
    with pytest.raises(ValueError, match="lr is set twice"):
        parse_set(["lr=1", "lr=2"])
    with pytest.raises(ValueError, match="steps=10 and epochs=2"):
        parse_set(["steps=10", "epochs=2"])


def test_steps_follow_photos_batches_and_ranks():
    config = FinetuneConfig(epochs=3, batch_size=8, accumulate=2)
    assert config.total_steps(100) == 19  # 300 photos in steps of 16
    assert config.total_steps(100, world=2) == 10
    assert config.replace(steps=7).total_steps(100) == 7


def test_crops_must_be_whole_patches():
    FinetuneConfig(global_size=224, local_size=98).check_patch(14)
    with pytest.raises(ValueError, match="local_size 98 is not a multiple of the patch size 16; use 96"):
        FinetuneConfig().check_patch(16)
    FinetuneConfig(n_local=0).check_patch(16)


@pytest.mark.parametrize("n_images", [8, 60, 800, 20_000, 500_000])
@pytest.mark.parametrize("backbone", ["dinov2-small", "dinov2-giant", "dino-vits8", "dinov3-vits16", "scratch"])
def test_a_folder_of_any_size_gets_valid_settings(n_images, backbone):
    config = FinetuneConfig.for_dataset(n_images, backbone, "cpu")
    assert config.backbone == backbone
    assert config.objective == ("dino" if backbone == "scratch" else "diet")
    assert 2 <= config.batch_size <= max(2, n_images // (4 if backbone == "scratch" else 2))
    assert config.total_steps(n_images) * config.batch_size <= max(100 * n_images, 20)
    config.check_patch({"dino-vits8": 8, "dinov3-vits16": 16}.get(backbone, 14))


@pytest.mark.parametrize("n_images", [8, 800, 100_000])
def test_self_distillation_of_a_folder_of_any_size_gets_valid_settings(n_images):
    config = FinetuneConfig.for_dataset(n_images, "dinov2-small", "cpu", objective="dino")
    assert 2 <= config.batch_size <= max(2, n_images // 4) and config.minutes == 0 < config.steps


def test_the_objective_follows_from_what_was_asked_for():
    def chosen(**explicit):
        return FinetuneConfig.for_dataset(800, "dinov2-small", "cpu", **explicit)

    assert (chosen().objective, chosen().minutes) == ("diet", 10)
    assert chosen().tail_keys and not chosen(objective="labels").tail_keys
    assert chosen(max_blocks=2).objective == chosen(centering="off").objective == "dino"
    assert (chosen(objective="dino", minutes=5).minutes, chosen(steps=7).minutes) == (5, 0)
    assert chosen(objective="labels").label_smoothing < chosen().label_smoothing
    with pytest.raises(ValueError, match="objective must be one of diet, labels, dino"):
        chosen(objective="dint")


def test_settings_are_listed_for_the_objectives_that_have_them():
    diet, dino = explanations("diet"), explanations("dino")
    assert "views" in diet and "views" not in dino and "centering" in dino and "centering" not in diet
    assert {"lr", "minutes", "seed"} <= set(diet) & set(dino)


def test_explicit_settings_win_and_others_follow():
    config = FinetuneConfig.for_dataset(800, "dinov2-small", "cpu", batch_size=32, epochs=2, lr=1e-3)
    assert (config.batch_size, config.epochs, config.steps, config.lr) == (32, 2, 0, 1e-3)
    with pytest.raises(ValueError, match="contradict"):
        FinetuneConfig.for_dataset(800, "dinov2-small", "cpu", steps=5, epochs=2)


def test_small_sets_are_treated_gently():
    few, many = (FinetuneConfig.for_dataset(n, "dinov2-small", "cpu", objective="dino") for n in (200, 100_000))
    assert few.prototypes < many.prototypes
    assert 0 < few.max_blocks < 12 and many.max_blocks == 0


def test_every_field_has_a_rule_or_is_a_plain_switch():
    free = {field.name for field in dataclasses.fields(FinetuneConfig) if field.metadata["rule"] is ANY}
    assert free == {"flip", "shared_head", "compile", "shard", "tail_keys", "backbone"}


def test_every_rule_accepts_the_default_and_has_a_sentence():
    for field in dataclasses.fields(FinetuneConfig):
        assert field.metadata["rule"].accepts(field.default) and field.metadata["rule"].text, field.name


def test_every_setting_is_explained():
    helps = explanations()
    assert list(helps) == [field.name for field in dataclasses.fields(FinetuneConfig)]
    assert all(len(text) > 10 for text in helps.values())
    assert helps["lr"] == "peak learning rate of the backbone's last block"
