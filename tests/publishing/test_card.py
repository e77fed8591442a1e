"""What the card of a model on the hub tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from test_models import small

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.data.source import DataSource
from nonlocalseg.evaluation.results import Evaluation, Settings
from nonlocalseg.inference.borrowed import fingerprint
from nonlocalseg.metrics import class_counts, scores
from nonlocalseg.publishing.card import data_lines, model_card, read_subject, terms_of
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.plan import Plan, write_plan
from nonlocalseg.values import changed

ROOT = "/home/somebody/secret/CamVid"


def evaluated(run: Path, model: nls.Segmenter, split: str = "test") -> Path:
    """An evaluation of `model` with one image and figures that are easily told."""
    confusion = torch.zeros(5, 6, dtype=torch.int64)
    confusion[:, :5] = torch.diag(torch.tensor([90, 80, 70, 60, 0]))
    confusion[1, 0] = 10
    images = [{"name": "a", "miou": 0.5, "pixel_accuracy": 0.5, "pixels": int(confusion.sum())}]
    settings = Settings(
        model="m",
        weights=fingerprint(model),
        source=DataSource(data="camvid", root=ROOT, split=split),
        view=model.view,
    )
    counts = class_counts(confusion)[None]
    found = Evaluation(scores(confusion), model.classes, images, counts, (0.9012, 0.9876), 1.0, settings)
    return found.write(run / "evaluation")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card") / "run"
    model = small("ann")
    model.config = changed(model.config, {"trained_crop": (48, 64)})
    model.save_pretrained(folder / "best")
    phase = Phase(data="camvid", root=ROOT, steps=123, batch_size=2, crop=(48, 64), split="train+val", val_split=None)
    plan = Plan(
        model="ann", backbone="resnet18", backbone_weights=f"{ROOT}/weights.safetensors", seed=7, phases=(phase,)
    )
    write_plan(folder / "recipe.yaml", plan)
    evaluated(folder, model)
    stranger = small("fcn")
    os.utime(evaluated(folder, stranger, "val"), (2e9, 2e9))
    (folder / "evaluation" / "damaged.json").write_text("{")
    return folder


def test_the_card_of_a_run(run: Path) -> None:
    card = model_card(read_subject(run), "somebody/some-model")
    about = yaml.safe_load(card.split("---")[1])
    assert about["library_name"] == "nonlocalseg"
    assert about["pipeline_tag"] == "image-segmentation"
    assert (about["license"], about["license_name"]) == ("other", "terms-of-the-training-data")
    assert about["datasets"] == ["camvid"]
    (result,) = about["model-index"][0]["results"]  # that of other weights, and the damaged one, are not told
    (metric,) = result["metrics"]
    assert result["dataset"] == {"name": "camvid", "type": "camvid", "split": "test"}
    assert (metric["value"], metric["args"]) == (0.9472, {"interval_95": [0.9012, 0.9876]})
    for line in (
        'nls.from_pretrained("hf:somebody/some-model")',
        "| camvid, test | 94.72 (90.12 to 98.76) | 97.22 | 96.77 | 1 | whole",
        "`camvid`, split train+val. Terms: CamVid: its page names no licence",
        "Its backbone began with the weights `weights.safetensors`, whose terms count as well.",
        "| steps | 123 |",
        "| seed | 7 |",
        "| batch size | 2 |",
        "It was trained on crops of 64x48 pixels",
        "Its weakest classes are class 1 (IoU 88.89 %), class 0 (IoU 90.00 %), class 2 (IoU 100.00 %).",
        "| 1 | class 1 |",
        "| 88.89 |",
        "| 4 | class 4 |",
        "The weights follow from the data above, whose terms decide",
        "## Intended use",
        "## Limits",
    ):
        assert line in card, line
    assert "secret" not in card  # no folder of the machine
    assert "| root |" not in card
    assert "{{" not in card


def test_the_card_of_a_model_alone() -> None:
    card = model_card(read_subject(small("fcn")), "somebody/some-model", "cc-by-4.0")
    about = yaml.safe_load(card.split("---")[1])
    assert about["license"] == "cc-by-4.0"
    assert "model-index" not in about
    assert "datasets" not in about
    for line in (
        "What it was trained on is not recorded.",
        "How good it is has not been measured.",
        "None were given.",
        "cc-by-4.0, within",
    ):
        assert line in card, line


def test_names_of_classes_cannot_break_the_tables() -> None:
    model = small("fcn")
    names = ("a|b", "<b>", "x_y*", "[z](w)", "é")
    model.config, model.classes = changed(model.config, {"classes": names}), names
    card = model_card(read_subject(model), "somebody/some-model")
    assert [rf"| {number} | {name} |" in card for number, name in enumerate(("a\\|b", "\\<b\\>", "x\\_y\\*"))] == [
        True
    ] * 3


def test_whose_terms_count() -> None:
    def lines(**plan: object) -> list[str]:
        subject = read_subject(small("fcn"))
        data = str(plan.pop("data", "synthetic"))
        phases = (Phase(data=data, root="/x"),)
        return data_lines(type(subject)(subject.model, subject.config, Plan(phases=phases, **plan)))

    assert lines(pretrained=False) == [
        "`synthetic`, split train, validated on val. Drawn by this library, without anybody's rights."
    ]
    assert "most likely from ImageNet" in lines()[1]
    assert "ADE20K: images for research" in lines(init_from="mmseg:ann-r50-ade20k", pretrained=False)[1]
    assert "the model `mine`" in lines(init_from="/home/x/mine", pretrained=False)[1]
    assert "who knows their terms" in lines(data="folder", pretrained=False)[0]
    assert terms_of("nyudv2") == "Its terms are not recorded here: ask its owners."


def test_drawn_data_leave_the_weights_free(tmp_path: Path) -> None:
    small("fcn").save_pretrained(tmp_path / "best")
    write_plan(tmp_path / "recipe.yaml", Plan(pretrained=False, phases=(Phase(data="synthetic"),)))
    assert "license: apache-2.0" in model_card(read_subject(tmp_path), "a/b")
    write_plan(tmp_path / "recipe.yaml", Plan(pretrained=True, phases=(Phase(data="synthetic"),)))
    assert "license: other" in model_card(read_subject(tmp_path), "a/b")


def test_evaluations_of_other_weights_are_refused(tmp_path: Path) -> None:
    model, other = small("fcn"), small("ann")
    path = evaluated(tmp_path, model)
    assert "| camvid, test | 94.72" in model_card(read_subject(model, [path]), "a/b")
    with pytest.raises(ValueError, match="an evaluation of other weights than these"):
        read_subject(other, [path])
    by_hand = nls.Segmenter(model.backbone, model.head, None, model.classes, model.palette)
    with pytest.raises(ValueError, match="assembled by hand and cannot be pushed"):
        read_subject(by_hand)


def test_a_dry_run_prints_the_card(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(run), "somebody/some-model", "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == model_card(read_subject(run), "somebody/some-model").strip()
    assert main(["push", str(run / "nothing"), "somebody/some-model", "--dry-run"]) == 2
