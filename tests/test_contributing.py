"""The worked pages of CONTRIBUTING.md, followed: each diff goes onto a copy of the source, whose promises are tried."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES, LONGEST_HEAD = 2, 40
PAGE = re.compile(r"^### (?P<title>.+?)\n.*?^```diff\n(?P<diff>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = {page["title"]: page["diff"] for page in PAGE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))}

# What every script begins with: a photograph, and `run`, which gives what a verb prints.
START = """
import contextlib, io
import numpy as np, torch
import nonlocalseg as nls
from pathlib import Path
from nonlocalseg.cli import main
from nonlocalseg.images import write_image, write_mask

here, source = Path("."), Path("src").resolve()
assert source in Path(nls.__file__).parents, nls.__file__
pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
small = {"backbone": "test_resnet.r160_in1k", "num_classes": 3, "auxiliary_channels": 8}

def run(*words, code=0):
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(list(words)) == code, shown.getvalue()
    return " ".join(shown.getvalue().split())
"""


def touched(diff: str) -> list[str]:
    return [line.split("/", 1)[1] for line in diff.splitlines() if line.startswith("+++ ")]


def follow(title: str, folder: Path) -> None:
    """The page's diff on a copy of src/ in `folder`."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    (folder / "page.diff").write_text(PAGES[title], encoding="utf-8")
    alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # no repository around it counts
    done = subprocess.run(["git", "apply", "page.diff"], cwd=folder, env=alone, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"CONTRIBUTING.md, {title!r}: its diff no longer applies, make it anew\n{done.stderr}")


def try_out(title: str, folder: Path, script: str) -> None:
    """Follow the page, then run `script` on the result."""
    follow(title, folder)
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = [sys.executable, "-c", START + script]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"CONTRIBUTING.md, {title!r}: what it promises does not hold\n{done.stdout}\n{done.stderr}")


def test_there_are_four_pages():
    assert list(PAGES) == ["A new head", "A new data set", "A new picture", "A new option of inference"]


@pytest.mark.parametrize("title", PAGES)
def test_a_page_touches_two_files_at_most(title):
    assert 1 <= len(touched(PAGES[title])) <= MOST_FILES


def test_a_diff_that_no_longer_applies_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(PAGES, "A new picture", PAGES["A new picture"].replace("\n def ", "\n definitely "))
    with pytest.raises(pytest.fail.Exception, match=r"(?s)'A new picture': its diff no longer applies.*pictures.py"):
        follow("A new picture", tmp_path)


def test_head(tmp_path):
    new = [line for line in PAGES["A new head"].split("--- a/")[0].splitlines() if line.startswith("+")]
    assert len(new) - 1 <= LONGEST_HEAD
    try_out(
        "A new head",
        tmp_path,
        """
model = nls.create_model("recurrent", channels=16, passes="3", **small).eval()
assert model.config.options.passes == 3
images = torch.rand(1, 3, 48, 64)
with torch.no_grad():
    before = model(images)["out"]
    model.save_pretrained("model")
    assert torch.equal(nls.from_pretrained("model")(images)["out"], before)
    assert (nls.fold(model)(images)["out"] - before).abs().max() < 1e-5
assert list(model.attention_maps(images)) == ["pass1", "pass2", "pass3"]
shown = run("list", "models", "--model", "recurrent", "--cost", "--backbone", small["backbone"], "--size", "64")
assert "How often the block is applied." in shown and "one APNB, applied twice" in shown
write_image("photo.png", pixels)
run("explain", "model", "photo.png", "--kind", "anchors", "--out", "seen")
assert Path("seen/photo-anchors-model-pass3.png").is_file()
""",
    )


def test_data_set(tmp_path):
    try_out(
        "A new data set",
        tmp_path,
        """
for part in ("train", "val"):
    for number in range(2):
        write_image(here / "data/images/10k" / part / f"{number}.jpg", pixels)
        values = np.where(np.arange(48 * 64) % 20 == 19, 255, np.arange(48 * 64) % 20).reshape(48, 64)
        write_mask(here / "data/labels/sem_seg/masks" / part / f"{number}.png", values)
(found,) = nls.DataSource(data="bdd100k", root="data").open()
assert len(found) == 2 and found[0]["label"][0, 17:22].tolist() == [17, 18, 255, 0, 1]
assert [len(part) for part in nls.DataSource(data="bdd100k", root="data", split="train+val").open()] == [2, 2]
shown = run("list", "datasets", "--data", "bdd100k")
assert "train (7000)" in shown and "bicycle" in shown and "sem_seg" in shown
assert "train 2 images, 2 labels: 2 of 64x48" in run("check-data", "bdd100k", "--root", "data")
""",
    )


def test_picture(tmp_path):
    try_out(
        "A new picture",
        tmp_path,
        """
nls.create_model("fcn", channels=8, **small).save_pretrained("model")
write_image("photo.png", pixels)
assert "confidence the probability of each pixel's predicted class" in run("explain", "--help")
run("explain", "model", "photo.png", "--kind", "confidence", "--out", "seen")
assert sorted(path.name for path in Path("seen").iterdir()) == ["photo-confidence.png", "photo-confidence.svg"]
""",
    )


def test_option_of_inference(tmp_path):
    try_out(
        "A new option of inference",
        tmp_path,
        """
model = nls.create_model("fcn", channels=8, **small).eval()
for verb in ("predict", "evaluate", "submit"):
    assert "--vertical-flip, --no-vertical-flip See every image upside down as well" in run(verb, "--help")
once, turned = nls.predict(model, pixels), nls.predict(model, pixels[::-1].copy())
both = nls.predict(model, pixels, vertical_flip=True).probabilities
expected = (once.probabilities + turned.probabilities.flip(-2)) / 2
assert (both - once.probabilities).abs().max() > 1e-4 and (both - expected).abs().max() < 1e-5
write_image("images/test/0.png", pixels)
write_mask("masks/test/0.png", np.zeros((48, 64), np.uint8))
Path("classes.yaml").write_text("masks: {0: a, 1: b, 2: c}")
scores = nls.evaluate(model, data="folder", root=".", split="test", vertical_flip=True, workers=0, progress=False)
assert scores.settings.view.vertical_flip is True
assert nls.View(vertical_flip=True).words() == ["whole images", "one scale", "upside down as well"]
""",
    )
