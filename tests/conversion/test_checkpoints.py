"""Checkpoints of other projects: every listing converts, real widths give the stored logits, and mistakes are named."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from golden_files import Stored, assert_within, listed_keys, portable_fill
from safetensors.torch import save_file

import nonlocalseg as nls
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.mmseg_writing import to_mmseg
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.inference.engine import infer
from nonlocalseg.models.creation import create_model

LISTINGS = {
    "f_keys_mmseg_ann_r50-d8": ("mmseg", "ann", "resnet50c", 46_228_614),
    "f_keys_mmseg_ann_r101-d8": ("mmseg", "ann", "resnet101c", 65_220_742),
    "f_keys_mmseg_nonlocal_r50-d8": ("mmseg", "nonlocal", "resnet50c", 50_023_814),
    "f_keys_mmseg_nonlocal_r101-d8": ("mmseg", "nonlocal", "resnet101c", 69_015_942),
    "f_keys_mmseg_pspnet_r50-d8": ("mmseg", "psp", "resnet50c", 48_975_494),
    "f_keys_mmseg_pspnet_r101-d8": ("mmseg", "psp", "resnet101c", 67_967_622),
    "f_keys_mmseg_deeplabv3_r50-d8": ("mmseg", "aspp", "resnet50c", 68_113_030),
    "f_keys_mmseg_deeplabv3_r101-d8": ("mmseg", "aspp", "resnet101c", 87_105_158),
    "f_keys_mmseg_fcn_r50-d8": ("mmseg", "fcn", "resnet50c", 49_497_734),
    "g_keys_official_ann_deepbase_resnet50_dilated8": ("ann-official", "ann", "resnet50s", 48_702_182),
    "g_keys_official_ann_deepbase_resnet101_dilated8": ("ann-official", "ann", "resnet101s", 67_694_310),
    "g_keys_official_gald_res50": ("gald-official", "galdv1", "resnet50s", 52_402_662),
    "g_keys_official_gald_res101": ("gald-official", "galdv1", "resnet101s", 71_394_790),
    "g_keys_official_pspnet_res50": ("gald-official", "psp", "resnet50s", 51_445_222),
    "g_keys_official_pspnet_res101": ("gald-official", "psp", "resnet101s", 70_437_350),
}
FULL = {
    "h2_mmseg_ann_r50-d8_portable": "f_keys_mmseg_ann_r50-d8",
    "h2_mmseg_pspnet_r50-d8_portable": "f_keys_mmseg_pspnet_r50-d8",
    "h2_mmseg_deeplabv3_r50-d8_portable": "f_keys_mmseg_deeplabv3_r50-d8",
    "h2_official_ann_r50_96x128_portable": "g_keys_official_ann_deepbase_resnet50_dilated8",
    "h2_official_gald_res50_128x160_portable": "g_keys_official_gald_res50",
    "h2_official_pspnet_res50_128x160_portable": "g_keys_official_pspnet_res50",
}


def ones(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """A state dict that costs nothing to make: every tensor one broadcast number."""
    return {key: torch.ones(()).expand(shape) for key, shape in shapes.items()}


@pytest.mark.shared
@pytest.mark.parametrize("listing", LISTINGS)
def test_every_listing_converts_strictly(shared, listing):
    source, head, backbone, parameters = LISTINGS[listing]
    model = convert(ones(listed_keys(shared / f"golden/{listing}.json")), source)
    assert model.config is not None
    assert (model.config.model, model.config.backbone) == (head, backbone)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.num_classes == 19


@pytest.mark.shared
@pytest.mark.parametrize("name", FULL)
def test_full_networks_give_the_stored_logits(shared, name):
    stored = Stored(shared / f"golden/{name}.safetensors")
    source = LISTINGS[FULL[name]][0]
    model = convert(portable_fill(listed_keys(shared / f"golden/{FULL[name]}.json")), source)
    images = stored.inputs["x"]
    images = images if source == "mmseg" else images.flip(1)  # stored as the official codes see them: BGR
    with torch.no_grad():
        features = model.backbone(images)
        outputs = {"out.0": model.head(features), "out.1": model.auxiliary(features)}
    for key, out in outputs.items():
        reference = stored[key]
        out = torch.nn.functional.interpolate(out, reference.shape[-2:], mode="bilinear", align_corners=True)
        assert (out - reference).abs().max() <= 1e-4 * reference.std()


def h1(shared, name, **options):
    stored = Stored(shared / f"golden/{name}.safetensors")
    weights = stored if stored.state else Stored(shared / "golden/h1_mmseg_ann_r18.safetensors")
    model = convert(weights.state, "mmseg", **options)
    mean, std = model.mean, model.std
    return stored, model, stored.inputs["x"] * std + mean  # the stored inputs are normalised already


def assert_close_to(reference, value):
    """Within 1e-5 of the largest value, or of 1 where that is less."""
    assert_within(value, reference, 1e-5 * max(1.0, reference.abs().max().item()))


@pytest.mark.shared
def test_small_network_of_mmsegmentation(shared):
    stored, model, images = h1(shared, "h1_mmseg_ann_r18")
    with torch.no_grad():
        features = model.backbone(stored.inputs["x"])
        outputs = [
            model.head(features),
            model.auxiliary(features),
            model(images)["out"],
            *(features[n] for n in (2, 3, 4, 5)),
        ]
        slide = infer(model, images, mode="slide", crop=65, stride=43, average="logits")
    for index, out in enumerate(outputs):
        assert_close_to(stored[f"out.{index}"], out)
    assert_close_to(stored["out.slide"], slide)


@pytest.mark.shared
def test_small_network_at_another_size(shared):
    stored, model, _ = h1(shared, "h1_mmseg_ann_r18_64x96")
    with torch.no_grad():
        assert_close_to(stored["out.0"], model.head(model.backbone(stored.inputs["x"])))


@pytest.mark.shared
def test_small_network_with_aligned_corners(shared):
    stored, model, images = h1(shared, "h1_mmseg_ann_r18_ac", align_corners=True)
    with torch.no_grad():
        full = model(images)["out"]
        slide = infer(model, images, mode="slide", crop=65, stride=43, average="logits", align_corners=True)
    assert_close_to(stored["out.full"], full)
    assert_close_to(stored["out.slide"], slide)


# --- without stored files ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ours():
    torch.manual_seed(0)
    options = {"channels": 16, "key_channels": 8, "value_channels": 8, "auxiliary_channels": 8}
    small = {"channels": [8, 16, 32, 64], "stem_type": "deep", "stem_width": 4}
    model = create_model("ann", "resnet18", classes=["a", "b", "c"], wiring="mmseg", backbone_options=small, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_there_and_back(ours, tmp_path):
    checkpoint = to_mmseg(ours)
    torch.save(checkpoint, tmp_path / "ann.pth")
    again = convert(read_checkpoint(tmp_path / "ann.pth"), "mmseg")
    assert again.classes == ("a", "b", "c")
    assert again.palette == ours.palette
    images = torch.rand(1, 3, 40, 48)
    torch.testing.assert_close(again(images)["out"], ours(images)["out"])
    again.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(nls.from_pretrained(tmp_path / "model")(images)["out"], ours(images)["out"])


@pytest.mark.shared
def test_back_to_mmsegmentation_has_exactly_its_keys(shared):
    shapes = listed_keys(shared / "golden/f_keys_mmseg_ann_r50-d8.json")
    written = to_mmseg(convert(ones(shapes), "mmseg"))["state_dict"]
    assert {key: list(value.shape) for key, value in written.items()} == shapes


def test_only_the_mmseg_wiring_goes_back(ours):
    other = create_model("ann", "test_resnet.r160_in1k", num_classes=3, channels=8)
    with pytest.raises(ValueError, match="mmsegmentation has no backbone"):
        to_mmseg(other)
    with pytest.raises(ValueError, match=r"mmsegmentation has no galdv1; these can be written for it: .*ann"):
        to_mmseg(create_model("galdv1", "test_resnet.r160_in1k", num_classes=3, channels=8))


@pytest.mark.parametrize("wrap", ["module", "state_dict", "safetensors"])
def test_wrappers_and_formats(ours, wrap, tmp_path):
    state = to_mmseg(ours)["state_dict"]
    path = tmp_path / ("a.safetensors" if wrap == "safetensors" else "a.pth")
    if wrap == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}} if wrap == "module" else state, path)
    again = convert(read_checkpoint(path), "mmseg", classes=["x", "y", "z"])
    assert again.classes == ("x", "y", "z")
    assert torch.equal(again.head.classifier.weight, ours.head.classifier.weight)


def test_official_input_becomes_rgb_between_0_and_1():
    """BGR minus mean on 0-255 gives the same first convolution as RGB in [0, 1] through the converted one."""
    torch.manual_seed(0)
    options = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary_channels": 4}
    source = create_model("ann", "resnet50s", num_classes=2, wiring="official", **options)
    from nonlocalseg.conversion.key_maps import renamed_back
    from nonlocalseg.conversion.official import ANN_OFFICIAL

    state, _ = renamed_back(source.state_dict(), ANN_OFFICIAL)
    model = convert(state, "ann-official")
    image = torch.rand(1, 3, 32, 32)
    bgr = image.flip(1) * 255 - torch.tensor([102.9801, 115.9465, 122.7717]).view(1, 3, 1, 1)
    weight = state["backbone.prefix.conv1.weight"]
    expected = torch.nn.functional.conv2d(bgr, weight, stride=2, padding=1)
    torch.testing.assert_close(model.backbone.body.conv1[0](model.normalise(image)), expected, rtol=1e-3, atol=1e-3)
    assert model.align_corners


def _without(state, *prefixes):
    return {k: v for k, v in state.items() if not k.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"x.weight": torch.ones(1)}, "no known mmseg head: expected the key decode_head"),
        (lambda s: {**s, "decode_head.extra.weight": torch.ones(1)}, "no place, first: decode_head.extra.weight"),
        (lambda s: _without(s, "decode_head.context.bottleneck"), "missing: head.context.fuse.conv.weight"),
        (lambda s: _without(s, "decode_head.conv_seg"), "truncated: decode_head.conv_seg.weight is missing"),
        (lambda s: _without(s, "backbone.layer4"), "no known ResNet; is the file whole"),
        (lambda s: {}, "holds no tensors"),
        (
            lambda s: {**s, "decode_head.context.stages.0.query_project.conv.weight": torch.ones(8, 16, 1, 1)},
            "key and query are one module",
        ),
    ],
)
def test_what_does_not_fit_is_named(ours, change, message):
    with pytest.raises(ValueError, match=message) as caught:
        convert(change(to_mmseg(ours)["state_dict"]), "mmseg")
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_checkpoint(tmp_path / "no.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(ValueError, match=r"cut.pth is no readable checkpoint") as caught:
        read_checkpoint(tmp_path / "cut.pth")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="did you mean 'mmseg'"):
        convert({}, "mmsg")


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_checkpoint_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="save its state dict alone"):
        read_checkpoint(tmp_path / "bad.pth")
    assert "code ran" not in capsys.readouterr().out


class HistoryBuffer:
    """Stands for mmengine's; what matters is its name in the file."""

    def __init__(self) -> None:
        self.history = np.arange(3.0)
        self.methods = {"mean": getattr}


def test_checkpoints_of_mmengines_runner_are_read_without_their_log(ours, tmp_path, monkeypatch):
    module = types.ModuleType("mmengine.logging.history_buffer")
    monkeypatch.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
    monkeypatch.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
    monkeypatch.setitem(sys.modules, "mmengine.logging.history_buffer", module)
    monkeypatch.setattr(module, "HistoryBuffer", HistoryBuffer, raising=False)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    written = to_mmseg(ours)
    hub = {"log_scalars": {"loss": HistoryBuffer()}, "runtime_info": {"epoch": np.int64(3)}}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({**written, "message_hub": hub, "optimizer": optimizer}, tmp_path / "iter_10.pth")
    again = convert(read_checkpoint(tmp_path / "iter_10.pth"), "mmseg")
    assert again.classes == ours.classes
    assert torch.equal(again.head.classifier.weight, ours.head.classifier.weight)


def test_messages_about_files_hold_no_escapes(tmp_path):
    torch.save({"state_dict": Payload()}, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match="it holds a Python object") as caught:
        read_checkpoint(tmp_path / "bad.pth")
    assert str(caught.value).isprintable()


def test_what_mmsegmentation_lacks_is_not_written():
    options = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary": False}
    small = {"channels": (8, 16, 32, 64), "stem_type": "deep", "stem_width": 4}
    for wrong in (
        {"sampling": "pyramid_max"},
        {"normalisation": "rescale"},
        {"scaled": False},
        {"max_pool_ceil": True},
        {"dilated_blocks": "all", "dilate_second": True},
        {"fuse": (3, 4)},
        {"block_dropout": 0.1},
    ):
        model = create_model(
            "ann", "resnet18", num_classes=2, wiring="mmseg", backbone_options=small, **options, **wrong
        )
        with pytest.raises(ValueError, match=[*wrong][-1]):
            to_mmseg(model)


@pytest.mark.parametrize(
    "given",
    [
        {"align_corners": True, "anchor_sizes": (1, 2, 4)},
        {"multi_grid": (1, 2), "output_stride": 16},
        {"output_stride": 32, "norm_eps": 1e-3},
        {"dilated_blocks": "all", "auxiliary": False},
    ],
)
def test_options_come_back(given, tmp_path):
    torch.manual_seed(0)
    options = {"channels": 8, "key_channels": 4, "value_channels": 4, **given}
    small = {"channels": (8, 16, 32, 64)}
    model = create_model("ann", "resnet18", num_classes=2, wiring="mmseg", backbone_options=small, **options).eval()
    torch.save(to_mmseg(model), tmp_path / "ann.pth")
    again = convert(read_checkpoint(tmp_path / "ann.pth"), "mmseg")
    images = torch.rand(1, 3, 65, 49)
    assert torch.equal(again(images)["out"], model(images)["out"])
    assert again.config is not None
    assert model.config is not None
    assert again.config.flat() | {"anchor_sizes": None} == model.config.flat() | {"anchor_sizes": None}


def test_a_tensor_larger_than_its_file_is_refused(ours, tmp_path):
    state = to_mmseg(ours)["state_dict"]
    state["decode_head.bottleneck.conv.weight"] = torch.ones(1).expand(100_000, 100_000, 3, 3)
    torch.save(state, tmp_path / "wide.pth")
    with pytest.raises(ValueError, match=r"decode_head\.bottleneck\.conv\.weight .* more than the file holds"):
        read_checkpoint(tmp_path / "wide.pth")
