"""Dry runs: of every recipe, against published memory and parameters, and on data that are there."""

from __future__ import annotations

import pytest

from nonlocalseg.cli import main
from nonlocalseg.models.cost import model_cost
from nonlocalseg.models.creation import create_model
from nonlocalseg.recipes.catalog import RECIPES
from nonlocalseg.training import forecast
from nonlocalseg.training.forecast import ASSUMED_CLASSES, dry_run


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_planned(name):
    recipe = RECIPES[name]
    outlooks = dry_run(name, progress=False)
    assert len(outlooks) == len(recipe.phases)
    for outlook, phase in zip(outlooks, recipe.phases, strict=True):
        assert outlook.batch == (phase.batch_size, 3, *phase.crop)
        assert outlook.cost.parameters >= outlook.cost.trained > 0
        assert outlook.cost.multiply_adds > 1e8
        assert outlook.rates[0][0] > 0
        assert outlook.rates[-1][0] == pytest.approx(phase.min_rate)
        assert all(outlook.lines())
        if outlook.images is None:
            assert phase.data == "folder"
        else:
            assert outlook.epochs == pytest.approx(phase.steps * phase.batch_size / outlook.images)


@pytest.mark.parametrize(
    ("name", "images", "gigabytes"),  # of one GPU, ann-model-zoo
    [
        ("cityscapes/ann-resnet50c-mmseg-512x1024-40k", 2, 6.0),
        ("cityscapes/ann-resnet101c-mmseg-512x1024-40k", 2, 9.5),
        ("cityscapes/ann-resnet50c-mmseg-769x769-40k", 2, 6.8),
        ("cityscapes/ann-resnet101c-mmseg-769x769-40k", 2, 10.7),
        ("ade20k/ann-resnet50c-mmseg-512x512-80k", 4, 9.1),
        ("ade20k/ann-resnet101c-mmseg-512x512-80k", 4, 12.5),
        ("voc2012/ann-resnet50c-mmseg-512x512-20k", 4, 6.0),
        ("voc2012/ann-resnet101c-mmseg-512x512-20k", 4, 9.5),
    ],
)
def test_memory_is_near_the_published(name, images, gigabytes):
    (outlook,) = dry_run(name, batch_size=images, devices=1, progress=False)
    assert sum(outlook.memory.values()) / 1e9 == pytest.approx(gigabytes, rel=0.15)
    (half,) = dry_run(name, batch_size=images, devices=1, accumulate=2, progress=False)
    assert half.at_once == images // 2
    assert half.memory["activations"] * 2 == outlook.memory["activations"]


def test_parameters_are_the_models():
    (outlook,) = dry_run("camvid/ann-resnet18", progress=False)
    model = create_model("ann", "resnet18", num_classes=11)
    assert outlook.cost.parameters == outlook.cost.trained == sum(p.numel() for p in model.parameters())


def test_frozen_parts_cost_less():
    def planned(**options):
        return dry_run("camvid/ann-resnet18", progress=False, **options)[0]

    whole, body, norms = planned(), planned(frozen_backbone=True), planned(frozen_batchnorm=True)
    assert body.cost.trained < norms.cost.trained < whole.cost.trained
    assert body.cost.kept < whole.cost.kept
    assert planned(optimizer="adamw").memory["optimizer"] == 2 * whole.memory["optimizer"]
    assert "average" in planned(ema=0.99).memory
    assert planned(checkpointing=True).cost.kept < whole.cost.kept
    assert planned(precision="bf16").memory["activations"] < whole.memory["activations"]


def test_drawn_and_real_images_pass_through_the_training_transform(small, monkeypatch):
    seen = []
    original = forecast.train_transform
    monkeypatch.setattr(forecast, "train_transform", lambda *given: seen.append(given) or original(*given))
    (drawn,) = dry_run("camvid/ann-resnet18", class_balance=0.5, crop=64, progress=False)
    assert drawn.source.startswith("drawn")
    ((augmentation, mean),) = seen
    assert augmentation is drawn.phase
    assert augmentation.class_balance == 0.5
    assert mean == (0.485, 0.456, 0.406)


def test_arithmetic_is_counted_as_elsewhere():
    """The head's, the backbone's and the auxiliary head's, by the one counter."""
    (outlook,) = dry_run("camvid/fcn-resnet18", model_options={"auxiliary": False}, crop=64, progress=False)
    expected = model_cost("fcn", "resnet18", (64, 64), 11)[1]
    assert outlook.cost.multiply_adds == pytest.approx(expected, rel=1e-4)  # dropout multiplies, too


def test_the_plan_is_printed_and_nothing_written(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small.pop("progress")
    (outlook,) = dry_run(**small, out=tmp_path / "run")
    text = capsys.readouterr().out
    assert outlook.source == "the first of the training"
    assert (outlook.images, outlook.classes, outlook.epochs) == (6, 9, 2.0)
    assert "6 images, 9 classes" in text
    assert "nothing was trained" in text
    assert not list(tmp_path.iterdir())


def test_classes_that_only_the_files_know():
    assert dry_run("pascal_context/ann-resnet101s", progress=False)[0].classes == 60
    options = {"background": False}
    assert dry_run("pascal_context/ann-resnet101s", data_options=options, progress=False)[0].classes == 59
    assert dry_run("folder/ann-resnet50c-dice", progress=False)[0].classes == ASSUMED_CLASSES


def test_a_saved_model_is_planned_as_it_is(small, tmp_path):
    create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary=False).save_pretrained(
        tmp_path / "model"
    )
    small = {name: small[name] for name in ("data", "data_options", "steps", "crop", "batch_size", "progress")}
    (outlook,) = dry_run(init_from=str(tmp_path / "model"), **small)
    assert outlook.cost.parameters == sum(
        p.numel()
        for p in create_model("fcn", "mobilenetv2_035", num_classes=9, channels=8, auxiliary=False).parameters()
    )


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"recipe": "camvid/ann-resnet18", "root": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"recipe": "camvid/ann-resnet19"}, ValueError, "camvid/ann-resnet18"),
        ({"recipe": "camvid/ann-resnet18", "batch_size": 3, "accumulate": 2}, ValueError, "multiple of 2"),
        ({"recipe": "camvid/ann-resnet18", "batch_size": 3, "devices": 2}, ValueError, "multiple of 2"),
        ({"data": "camvit"}, ValueError, "camvid"),
        ({"recipe": "camvid/ann-resnet18", "split": "trian"}, ValueError, "'trian': did you mean 'train'"),
        ({"recipe": "nyudv2/ann-resnet101s", "val_split": "val"}, ValueError, "'val': choose from train, test"),
        ({"recipe": "camvid/ann-resnet18", "class_weights": (1.0, 2.0)}, ValueError, "2 numbers for 11 classes"),
        ({"recipe": "camvid/ann-resnet18", "terms": {"dise": 1.0}}, ValueError, "'dise'"),
        (
            {"recipe": "camvid/ann-resnet18", "data_options": {"length": 3}},
            ValueError,
            "has no options; leave 'length' out",
        ),
    ],
)
def test_mistakes_are_one_line(options, error, text):
    with pytest.raises(error, match=text) as caught:
        dry_run(**options, progress=False)
    assert "\n" not in str(caught.value)


def test_command_line(capsys):
    assert main(["train", "synthetic/ann-resnet10t", "--dry-run", "--batch-size", "2"]) == 0
    assert "2 x 3 x 64 x 256" in capsys.readouterr().out
