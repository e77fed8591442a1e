"""`benchmark export` at a tiny size: every form is there, with all its figures, and answers as the model does; no times."""

from __future__ import annotations

import json

import pytest
import torch
from test_models import small

from nonlocalseg.cli import main
from nonlocalseg.timing import exported

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("nncf")


def test_every_form_is_measured(monkeypatch):
    monkeypatch.setattr(exported, "cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(exported, "cpu_flags", lambda: ("fpu", "avx2"))
    seen: list[torch.nn.Module] = []

    def measure(form: torch.nn.Module) -> float:
        with torch.no_grad():
            assert form(torch.rand(1, 3, 40, 56))["out"].shape == (1, 5, 40, 56)
        seen.append(form)
        return 0.5

    table = exported.exports(small("fcn").eval(), "fcn", (48, 64), 1, measure=measure, compiled=False)
    rows = {row["name"]: row for row in table.rows}
    fast = next(name for name in rows if name.startswith("--fast"))
    assert list(rows) == [
        "eager", "folded, channels_last", fast, ".pt2", "onnxruntime", "OpenVINO", "OpenVINO, bfloat16",
        "onnxruntime, INT8", "OpenVINO, INT8",
    ]  # fmt: skip
    for name, row in rows.items():
        assert table.headings.keys() <= row.keys()
        assert min(row["seconds"], row["size"], row["torch_ratio"]) > 0
        assert row["mean_iou"] == 0.5
        if name not in ("eager", fast):
            assert 0 <= row["error"] < (2 if "INT8" in name else 0.1 if "bfloat16" in name else 1e-4)
    assert len(seen) == len(rows)
    assert max(rows[name]["torch_ratio"] for name in ("eager", "folded, channels_last", fast, ".pt2")) == 1
    for name in ("OpenVINO", "onnxruntime"):
        assert rows[f"{name}, INT8"]["size"] < rows[name]["size"]
    notes = "\n".join(table.notes)
    assert "its flags: fpu avx2" in notes
    assert "compiled form is left out" in notes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["network", "--calibrate", "photos"], "--calibrate has no effect on `benchmark network`"),
        (["network", "--data", "camvid"], "--data has no effect on `benchmark network`"),
        (["export", "--device", "cpu"], "--device has no effect on `benchmark export`"),
        (["export", "--model", "fcn", "--root", "photos"], "--root: fcn with drawn weights has no mIoU"),
        (
            ["export", "--model", "runs/none", "--backbone", "resnet18"],
            "--backbone: runs/none is a model that has its own",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, capsys):
    assert main(["benchmark", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_verb_passes_its_options_on(tmp_path, monkeypatch, capsys):
    given = {}

    def exports(model, title, size, repeat, photographs, measure):
        given.update(title=title, size=size, repeat=repeat, photographs=photographs, measure=measure)
        return exported.Table(title, {"name": ""}, [{"name": "eager"}])

    monkeypatch.setattr(exported, "exports", exports)
    words = ["--model", "fcn", "--backbone", "test_resnet.r160_in1k", "--size", "48", "64", "--repeat", "2"]
    assert main(["benchmark", "export", *words, "--json", str(tmp_path / "out.json")]) == 0
    assert given == {
        "title": "fcn on test_resnet.r160_in1k", "size": (48, 64), "repeat": 2, "photographs": None, "measure": None,
    }  # fmt: skip
    assert json.loads((tmp_path / "out.json").read_text())[0]["rows"] == [{"name": "eager"}]
