"""Whole images in tiles: every head that can gives the scores of the whole image, the others say why they cannot."""

from __future__ import annotations

import errno
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.cli import main
from nonlocalseg.inference.engine import classify, infer
from nonlocalseg.inference.features import FeatureStore
from nonlocalseg.inference.readers import FileReader, TensorCanvas, TensorReader
from nonlocalseg.inference.regions import regions_of, shares_of
from nonlocalseg.inference.streaming import Source, Sweep
from nonlocalseg.inference.windows import Window
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve
from nonlocalseg.models.folding import fold
from nonlocalseg.models.receptive import receptive_field
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.view import View

SIZE, TILE = (67, 333), (64, 96)
SHORT = {"aspp_rates": (1, 2, 3), "dense_rates": (1, 2), "distribute_dilation": 1, "psp_bins": (1, 3)}
WHOLE_ONLY = {
    "nonlocal": "NB and FNB relate every position with every other by a softmax",
    "fnb": "NB and FNB relate every position with every other by a softmax",
    "fusion_nonlocal": "NB and FNB relate every position with every other by a softmax",
    "fnb_nonlocal": "NB and FNB relate every position with every other by a softmax",
    "danet": "attention over positions relates every position",
    "dnl": "whitened pairs of all positions are related",
    "ccnet": "every position attends by a softmax to all of its row and column",
    "isa": "each position attends by a softmax to those at the same place of every window",
    "psanet": "every position has a mask of its own over all the others",
}


def tiny(name: str, backbone: str = "test_resnet.r160_in1k", **options) -> Segmenter:
    """A narrow model that sees as little as it can, with weights that let every block act."""
    given = {key: value for key, value in options.items() if key != "wiring"}
    start = resolve(name, backbone, ["a"], None, options.get("wiring", "default"), given).options
    narrow = {"channels": 8, "key_channels": 4, "value_channels": 4, "low_channels": 4, "coarse_channels": 4, **SHORT}
    narrow |= {"ema_channels": 8, "num_bases": 4, "num_codes": 4, "cgnl_groups": 2, "width": 8}
    changed = start.idle() | {field for field in narrow if not hasattr(start, field)}
    chosen = {key: value for key, value in narrow.items() if key not in changed}
    torch.manual_seed(0)
    model = nls.create_model(name, backbone, num_classes=5, auxiliary=False, **{**chosen, **options}).eval().double()
    for part in model.head.parameters():  # W_o and learnt factors start at zero
        if not part.any():
            torch.nn.init.normal_(part, std=0.3)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d) and part.running_var is not None:
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)  # timm's residual paths start at zero
            part.running_var.fill_(0.1)  # so that what blocks gather counts beside what they pass on
    return model


def photograph(size: tuple[int, int] = SIZE) -> torch.Tensor:
    """Float64 [1, 3, H, W], darker to the right, so that no tile is like another."""
    torch.manual_seed(1)
    return torch.rand(1, 3, *size, dtype=torch.float64) * torch.linspace(1, 0.2, size[1])


def in_tiles(model: Segmenter, images: torch.Tensor, crop: tuple[int, int] = TILE) -> torch.Tensor:
    """Logits in the model's precision, which `infer` would round to float32."""
    size = (images.shape[2], images.shape[3])
    source = Source(TensorReader(images[0]), size, False, model.align_corners, model.mean)
    sweep = Sweep(model, receptive_field(model), source, crop)
    with torch.no_grad():
        sweep.prepare()
        out = torch.full((1, model.num_classes, *size), torch.nan, dtype=images.dtype)
        for top in range(0, size[0], 50):
            for left in range(0, size[1], 70):
                window = Window(top, min(top + 50, size[0]), left, min(left + 70, size[1]))
                ((layer, share),) = sweep.layers(window)
                assert share is None
                out[window.area] = layer.place(layer.scores)
    return out


def assert_equal_to_whole(model: Segmenter, images: torch.Tensor) -> None:
    with torch.no_grad():
        whole = model(images)["out"]
    difference = (in_tiles(model, images) - whole).abs().max()
    assert difference <= 1e-10 * whole.abs().max()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WHOLE_ONLY])
def test_a_head_sees_in_tiles_what_it_sees_whole(name):
    assert_equal_to_whole(tiny(name), photograph())


@pytest.mark.parametrize(("name", "reason"), WHOLE_ONLY.items())
def test_a_head_that_cannot_says_why(name, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        receptive_field(tiny(name))


FORMS = {
    "max anchors": ("ann", {"sampling": "pyramid_max"}),
    "random anchors": ("apnb", {"sampling": "random", "anchor_sizes": (3,)}),
    "the paper's form": ("ann", {"wiring": "paper"}),
    "two stages fused": ("afnb", {"fuse": (3, 4)}),
    "no softmax": ("nonlocal", {"normalisation": "rescale"}),
    "no softmax, fused": ("fnb", {"normalisation": "none"}),
    "official GALDv1": ("galdv1", {"wiring": "official"}),
    "average mask": ("gald", {"mask_downsample": "average", "aggregate": "none"}),
    "bilinear mask": ("gald", {"mask_downsample": "bilinear", "aggregate": "none"}),
    "APNB aggregated last": ("gald", {"aggregate": "apnb", "distribute": "ldv2", "arrangement": "ldga"}),
    "both side by side": ("gald", {"aggregate": "psp", "arrangement": "parallel", "aggregate_stride": 1}),
    "plain mean": ("gcnet", {"pooling_type": "avg"}),
    "joined stages": ("encnet", {"lateral": (3, 4)}),
    "corners aligned": ("upernet", {"align_corners": True}),
    "stride 32": ("psp", {"output_stride": 32}),
    "patches": ("psp", {"backbone": "test_convnext", "output_stride": 32}),
}


@pytest.mark.parametrize("form", FORMS)
def test_so_does_every_form_of_it(form):
    name, options = FORMS[form]
    high = 131 if "official" in form else SIZE[0]  # whose LDv1 needs 15 cells
    assert_equal_to_whole(tiny(name, **options), photograph((high, SIZE[1])))


def test_a_folded_model_streams():
    assert_equal_to_whole(fold(tiny("ann")), photograph())


def test_the_border_is_needed_and_enough(monkeypatch):
    """What lies beyond the border changes nothing, and with much less of it the scores are others."""
    model, images = tiny("fcn"), photograph()
    field = receptive_field(model)
    with torch.no_grad():
        before = model(images)["out"]
        other = images.clone()
        other[..., 160 + field.scores :] = torch.rand(1)
        after = model(other)["out"]
        assert torch.equal(before[..., :160], after[..., :160])
        other[..., 160 + field.scores // 2 :] = torch.rand(1)
        assert not torch.equal(before[..., :160], model(other)["out"][..., :160])
    narrow = type(field)((), field.scores // 2, field.head, field.multiple, field.stage_strides, field.stride)
    monkeypatch.setattr(sys.modules[__name__], "receptive_field", lambda model: narrow)
    assert (in_tiles(model, images) - before).abs().max() > 1e-6 * before.abs().max()


def test_maps_that_are_not_kept_are_computed_anew(monkeypatch):
    monkeypatch.setattr(FeatureStore, "fits", staticmethod(lambda *_: False))
    assert_equal_to_whole(tiny("ann"), photograph())


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("test_efficientnet", "takes the mean over all positions .squeeze-and-excitation does so."),
        ("test_vit", "calls (flatten|view), which may relate all positions"),
    ],
)
def test_a_backbone_that_sees_all_positions_is_refused(backbone, reason):
    with pytest.raises(ValueError, match=f"^backbone: body.* {reason}"):
        receptive_field(nls.create_model("fcn", backbone, num_classes=3, channels=8, auxiliary=False))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"average": "logits"},
        {"flip": True},
        {"scales": (0.75, 1.0), "flip": True, "average": "logits"},
        {"scales": (0.5, 1.25), "softmax": "image"},
        {"short_side": 50},
    ],
)
def test_every_view_in_tiles_is_that_of_whole_images(changes):
    model, images = tiny("psp").float(), photograph((67, 120)).float()
    images = torch.cat([images, images.flip(-1)])
    with torch.no_grad():  # scores of thousands would make every probability 0 or 1
        model.head.classifier.weight /= model(images)["out"].std()
    whole = infer(model, images, **changes)
    streamed = infer(model, images, mode="stream", crop=64, **changes)
    assert (whole - streamed).abs().max() <= 1e-5 * whole.abs().max()
    classes = classify(model, images, **changes), classify(model, images, mode="stream", crop=64, **changes)
    assert (classes[0] == classes[1]).double().mean() >= 0.99999


def test_regions_gather_alone_and_are_blended():
    model, images = tiny("ann").float(), photograph().float()
    with torch.no_grad():
        model.head.classifier.weight /= model(images)["out"].std()
    streamed = infer(model, images, mode="stream", crop=64, average="logits")
    one = infer(model, images, mode="stream", crop=64, average="logits", regional=400)
    torch.testing.assert_close(one, streamed, rtol=0, atol=1e-5)
    several = infer(model, images, mode="stream", crop=64, average="logits", regional=128)
    assert not torch.allclose(several, streamed, atol=1e-4)
    assert several.isfinite().all()


@pytest.mark.parametrize(("side", "length"), [(333, 128), (128, 128), (129, 128), (200, 64), (1000, 96)])
def test_the_shares_of_regions_sum_to_one(side, length):
    spans = regions_of(side, length, 8)
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    assert all(start % 8 == 0 and end - start <= length for start, end in spans)
    total = torch.stack([shares_of(span, spans, (0, side)) for span in spans]).sum(0)
    torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "stream", "stride": 64, "crop": 128}, "stride: mode stream cannot do that"),
        ({"mode": "stream", "score_resize": "bicubic"}, "score_resize: mode stream cannot do that"),
        ({"mode": "stream", "pad_multiple": 8}, "pad_multiple: mode stream cannot do that"),
        ({"regional": 512}, "regional: for mode stream"),
    ],
)
def test_what_goes_not_with_tiles_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        View(**given)


def test_models_that_cannot_be_followed_are_refused():
    with pytest.raises(ValueError, match="regional: this model gathers nothing from the whole image"):
        infer(tiny("fcn").float(), photograph().float(), mode="stream", regional=64)
    with pytest.raises(ValueError, match="mode stream: function is no network of this library"):
        infer(lambda images: images, photograph().float(), mode="stream")
    fast = nls.speed_up(tiny("fcn").float())
    fast.precision = torch.bfloat16
    with pytest.raises(ValueError, match="mode stream: --fast runs this model in half precision"):
        infer(fast, photograph().float(), mode="stream")


class Counted(FileReader):
    """Remembers the windows that were read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.windows: list[Window] = []

    def read(self, window: Window) -> torch.Tensor:
        self.windows.append(window)
        return super().read(window)


def test_an_array_on_disk_is_read_in_windows_into_an_array_on_disk(tmp_path):
    model = tiny("psp").float()
    pixels = np.random.default_rng(0).integers(0, 256, (67, 500, 3), dtype=np.uint8)
    np.save(tmp_path / "image.npy", pixels)
    reader = Counted(tmp_path / "image.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as notes of the verb they would be said
        words = nls.predict_into(model, reader, tmp_path / "out" / "classes.npy", crop=64)
    assert words.startswith("seen in tiles of 64 x 64 pixels with a border of ")
    assert words.endswith(" in 2 passes")
    assert max(window.right - window.left for window in reader.windows) < 400
    classes = np.load(tmp_path / "out" / "classes.npy")
    assert classes.dtype == np.uint8
    assert (classes == nls.predict(model, pixels).mask.numpy()).mean() >= 0.99999
    canvas = TensorCanvas(reader.size)
    nls.predict_into(model, pixels, canvas, crop=64)
    assert np.array_equal(canvas.classes.numpy(), classes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((20, 20), np.uint8), r"image.npy: uint8 \[20, 20\]; an image is an RGB array uint8"),
        (np.zeros((20, 20, 3)), r"image.npy: float64 \[20, 20, 3\]; an image is"),
        (b"no array", "image.npy: no .npy file of an RGB array"),
    ],
)
def test_other_arrays_are_refused_and_nothing_is_written(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "image.npy").write_bytes(content)
    else:
        np.save(tmp_path / "image.npy", content)
    with pytest.raises(ValueError, match=message):
        nls.predict_into(tiny("fcn").float(), tmp_path / "image.npy", tmp_path / "out.npy")
    assert not (tmp_path / "out.npy").exists()


def test_a_disk_without_room_is_an_error_of_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    pixels = np.zeros((67, 120, 3), np.uint8)
    with pytest.raises(OSError, match="No space left"):
        nls.predict_into(tiny("fcn").float(), pixels, tmp_path / "classes.npy", crop=64)
    assert not list(tmp_path.iterdir())


def test_predict_writes_the_classes_of_an_array(tmp_path, capsys):
    model = tiny("psp").float()
    model.save_pretrained(tmp_path / "model")
    np.save(tmp_path / "image.npy", np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    words = ["predict", str(tmp_path / "model"), str(tmp_path / "image.npy"), "--out", str(tmp_path / "out")]
    assert main([*words, "--mode", "stream", "--crop", "64"]) == 0
    assert "note: seen in tiles of 64 x 64 pixels with a border of" in " ".join(capsys.readouterr().err.split())
    assert np.load(tmp_path / "out" / "index" / "image.npy.npy").shape == (40, 90)
    assert "image.npy" in (tmp_path / "out" / "areas.csv").read_text()
    capsys.readouterr()
    assert main([*words, "--again"]) == 0  # whole, as it fits into memory
    streamed = np.load(tmp_path / "out" / "index" / "image.npy.npy")
    assert np.array_equal(streamed, nls.predict(model, np.load(tmp_path / "image.npy")).mask.numpy())
