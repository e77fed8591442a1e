"""One contract for every model: odd sizes, training at batch 1, saving and loading, compilation, attention on demand."""

from __future__ import annotations

import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.blocks.attention import Attention
from nonlocalseg.blocks.distribution import LDv1, LDv2
from nonlocalseg.models.catalog import MODELS
from nonlocalseg.models.creation import resolve
from nonlocalseg.models.wirings import WIRINGS

SMALL = {"channels": 16, "key_channels": 8, "auxiliary_channels": 8, "low_channels": 4, "coarse_channels": 8}
# What a model needs on images of 16x16 pixels, and on networks that have no stage 2.
ON_SMALL_IMAGES = {"upernet": {"output_stride": 8}}
WITHOUT_STAGE_2 = {"deeplabv3plus": {"low_stage": 3}, "upernet": {"lateral_stages": (3, 4)}}

# What heads with blocks of their own tell of.
TOLD = {
    "deeplabv3plus": set(),
    "upernet": set(),
    "apc": {"cells1", "cells2", "cells3", "cells6"},
    "dm": set(),
    "ocr": {"objects"},
    "dgc": set(),
    "denseaspp": set(),
    "encnet": set(),
    "gcnet": {"context"},
    "danet": {"position"},
    "dnl": {"context"},
    "ccnet": {"pass1", "pass2"},
    "isa": {"far", "near"},
    "emanet": {"bases"},
    "psanet": {"collect", "distribute"},
}


def small(name: str, backbone: str = "test_resnet.r160_in1k", classes: int = 5, **options):
    """A narrow model: of `SMALL` what it has and what is not idle."""
    torch.manual_seed(0)
    chosen = {key: value for key, value in options.items() if key != "wiring"}
    config = resolve(name, backbone, ["a"], None, options.get("wiring", "default"), chosen)
    idle = config.options.idle() | config.idle_network()
    sizes = {key: value for key, value in SMALL.items() if key in config.flat() and key not in idle}
    model = nls.create_model(name, backbone, num_classes=classes, **{**sizes, **options})
    for parameter in model.head.parameters():  # W_o and learnt factors start at zero
        if parameter.ndim in (0, 4) and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", [(16, 16), (65, 33)])
def test_scores_have_the_images_size_and_batch_one_trains(name, size):
    model = small(name, **ON_SMALL_IMAGES.get(name, {})).train()
    images = torch.rand(1, 3, *size)
    outputs = model(images)
    beside = ("aux",) if model.auxiliary is not None else ()
    expected = dict.fromkeys(("out", *beside, *model.head.loss_weights), (1, 5, *size))
    expected |= {"presence": (1, 5)} if "presence" in expected else {}
    assert {key: value.shape for key, value in outputs.items()} == expected
    sum(value.square().mean() for value in outputs.values()).backward()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    assert set(model.eval()(images)) == {"out"}


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_it_predicts_the_same(name, tmp_path):
    model = small(name).eval()
    images = torch.rand(2, 3, 40, 56)
    model.save_pretrained(tmp_path / "model")
    again = nls.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(model(images)["out"], again(images)["out"])
    assert again.config == model.config
    assert (again.classes, again.palette) == (model.classes, model.palette)


@pytest.mark.parametrize("name", MODELS)
def test_compiles_without_graph_breaks(name):
    torch.compiler.reset()  # each model counts as a recompilation of one forward
    model = small(name).eval()
    images = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images)["out"], model(images)["out"])


@pytest.mark.parametrize("name", MODELS)
def test_channels_last_changes_nothing(name):
    model = small(name).eval()
    images = torch.rand(2, 3, 40, 56)
    expected = model(images)["out"]
    again = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))["out"]
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_attention_maps_come_on_demand(name):
    model = small(name).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        maps = model.attention_maps(torch.rand(1, 3, 40, 56))
    if name in TOLD:
        assert set(maps) == TOLD[name]
    else:
        telling = [module for module in model.head.modules() if isinstance(module, (Attention, LDv1, LDv2))]
        assert len(maps) == len(telling)
    for weights in maps.values():
        if weights.ndim == 4 or name == "apc":  # whose weights are sigmoids
            assert ((weights > 0) & (weights < 1)).all()
        else:
            total = weights.sum(2)
            torch.testing.assert_close(total, torch.ones_like(total))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wiring", WIRINGS)
@pytest.mark.parametrize("name", MODELS)
def test_every_wiring_of_every_model_runs(name, wiring):
    model = small(name, wiring=wiring).eval()
    side = 160 if wiring == "official" and "gald" in name else 40
    assert model(torch.rand(1, 3, side, side))["out"].shape == (1, 5, side, side)
    assert model.align_corners == (wiring == "official")


@pytest.mark.parametrize("arrangement", ["gald", "ldga", "parallel"])
@pytest.mark.parametrize("distribute", ["ldv1", "ldv2"])
@pytest.mark.parametrize("aggregate", ["psp", "aspp", "nonlocal", "cgnl", "apnb"])
def test_every_arrangement_of_gald(aggregate, distribute, arrangement):
    model = small("gald", aggregate=aggregate, distribute=distribute, arrangement=arrangement).train()
    model(torch.rand(1, 3, 40, 40))["out"].square().mean().backward()
    assert not [name for name, p in model.head.named_parameters() if p.grad is None]


@pytest.mark.parametrize("options", [{"distribute": "ldv1"}, {"distribute": "ldv2"}, {"distribute": "none"}])
def test_distribution_alone(options):
    assert small("gald", aggregate="none", **options).eval()(torch.rand(1, 3, 32, 48))["out"].shape == (1, 5, 32, 48)


@pytest.mark.parametrize(
    "options",
    [
        {"sampling": name, "anchor_sizes": sizes}
        for name, sizes in [
            ("random", (15,)),
            ("max", (15,)),
            ("average", (15,)),
            ("pyramid_random", (1, 2, 3, 6)),
            ("pyramid_max", (1, 2, 3, 6)),
            ("pyramid_average", (1, 2, 3, 6)),
            ("pyramid_average", (1, 3, 6, 8)),
            ("pyramid_average", (1, 4, 8, 12)),
        ]
    ]
    + [{"fuse": stages} for stages in [(4,), (3, 4), (2, 3, 4)]],
)
def test_rows_of_ann_table_7_and_supplement_table_2(options):
    model = small("ann", **options).eval()
    maps = model.attention_maps(torch.rand(1, 3, 64, 64))
    anchors = sum(n * n for n in options.get("anchor_sizes", (1, 3, 6, 8)))
    assert maps["context"].shape[2] == anchors
    assert {f"fusion{stage}" for stage in options.get("fuse", (4,))} < maps.keys()


@pytest.mark.parametrize(
    ("name", "backbone"),
    [(name, backbone) for name in MODELS for backbone in ("test_convnext.r160_in1k", "test_vit.r160_in1k")]
    + [("ann", name) for name in ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_small_patch16_dinov3")]
    + [("ann", "mobilenetv2_035")],
)
def test_modern_backbones(name, backbone):
    model = small(name, backbone, **(WITHOUT_STAGE_2.get(name, {}) if "vit" in backbone else {})).train()
    outputs = model(torch.rand(2, 3, 37, 50))
    assert all(value.shape == (2, 5, 37, 50) for value in outputs.values() if value.ndim == 4)
    sum(value.square().mean() for value in outputs.values()).backward()


def test_patches_are_padded_and_cropped():
    """A 14-pixel patch on an image of no multiple of it: the pixels inside keep their place."""
    model = small("fcn", "vit_tiny_patch16_224", auxiliary=False).eval()
    image = torch.rand(1, 3, 40, 50)
    whole = torch.nn.functional.pad(model.normalise(image), (0, 14, 0, 8))
    logits = model.head(model.backbone(whole))
    expected = torch.nn.functional.interpolate(logits, size=(48, 64), mode="bilinear")[:, :, :40, :50]
    torch.testing.assert_close(model(image)["out"], expected)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": "an"}, "unknown model 'an': did you mean 'ann'"),
        ({"backbone": "resnet5"}, "did you mean"),
        ({"wiring": "offical"}, "did you mean 'official'"),
        ({"anchor_size": (1,)}, "did you mean 'anchor_sizes'"),
        ({"model": "fcn", "anchor_sizes": (1, 2)}, "anchor_sizes has no effect on model 'fcn'"),
        ({"sampling": "average", "anchor_sizes": (1, 3)}, "takes one size"),
        ({"fuse": (7,)}, "fuse: stage 7 cannot be taken"),
        ({"num_classes": None}, "give classes"),
        ({"num_classes": 2, "classes": ["a", "b", "c"]}, "leave num_classes out"),
        ({"num_classes": None, "classes": ["a", "a"]}, "each of them once"),
        ({"palette": [(0, 0, 0)]}, "one RGB colour for each of the 5"),
        ({"multi_grid": (1, 2)}, "blocks"),
        ({"backbone": "vit_tiny_patch16_224", "output_stride": 8}, "keeps its patch size"),
        ({"backbone": "vit_tiny_patch16_224", "multi_grid": (1, 2, 4)}, "no ResNet"),
        ({"model": "gald", "aggregate": "psp", "arrangement": "parallel", "distribute": "none"}, "needs both"),
        ({"backbone_weights": "nowhere.safetensors"}, "does not exist"),
    ],
)
def test_mistakes_are_named_in_one_line(wrong, message):
    arguments = {"model": "ann", "backbone": "test_resnet.r160_in1k", "num_classes": 5, **wrong}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        nls.create_model(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_of_a_whole_classifier_load_without_a_word(tmp_path, caplog):
    import timm
    from safetensors.torch import save_file

    whole = timm.create_model("test_resnet.r160_in1k", pretrained=False).state_dict()
    save_file(whole, tmp_path / "whole.safetensors")
    model = nls.create_model(
        "fcn", backbone="test_resnet.r160_in1k", num_classes=2, backbone_weights=str(tmp_path / "whole.safetensors")
    )
    own = dict(model.backbone.named_parameters())
    assert any(torch.equal(own[key], whole[name]) for key in own for name in whole if key.endswith(name))
    assert not caplog.records


def test_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 16x16"):
        small("fcn").eval()(torch.rand(1, 3, 15, 40))


def test_one_small_image_cannot_train_batch_norm():
    model = small("fcn", output_stride=32).train()
    with pytest.raises(ValueError, match="use a batch of 2 or crops larger than 32"):
        model(torch.rand(1, 3, 32, 32))


def test_head_that_needs_a_missing_stage():
    model = small("ann")
    head = model.head
    head.stages = (1, 5)
    model.backbone.channels.pop(1)
    with pytest.raises(ValueError, match="the head needs stage 1"):
        nls.Segmenter(model.backbone, head, None, model.classes, model.palette)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34"])
def test_mmsegmentation_dilates_one_convolution_of_a_small_resnets_blocks(backbone):
    def dilations(**options):
        body = nls.create_model("fcn", backbone, num_classes=2, **options).backbone.body
        return [block.conv2.dilation[0] for block in body.layer4]

    assert set(dilations(wiring="mmseg")) == {1}
    assert max(dilations()) == 4
    assert max(dilations(wiring="mmseg", dilate_second=True)) == 4


def test_channels_last_networks_and_those_of_fixed_multiples_see_any_size():
    for backbone, multiple in (("swin_tiny_patch4_window7_224", 32), ("dla34", 32)):
        model = nls.create_model("fcn", backbone, num_classes=2, channels=8, auxiliary=False).eval()
        assert model.backbone.multiple == multiple
        features = model.features(torch.rand(1, 3, 97, 65))
        assert {stage: x.shape[1] for stage, x in features.items()} == model.backbone.channels
        assert model(torch.rand(1, 3, 97, 65))["out"].shape == (1, 2, 97, 65)


def test_networks_of_one_size_are_refused_when_they_are_made():
    with pytest.raises(ValueError, match="coat_tiny cannot see images of any size") as caught:
        nls.create_model("fcn", "coat_tiny", num_classes=2)
    assert "\n" not in str(caught.value)


def test_networks_whose_patches_do_not_divide_64_fold():
    model = nls.create_model("fcn", "eva02_tiny_patch14_224", num_classes=2, channels=8, auxiliary=False).eval()
    image = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        torch.testing.assert_close(nls.fold(model)(image)["out"], model(image)["out"])


def test_options_of_blocks_are_those_of_mmsegmentation():
    body = nls.create_model("fcn", "resnet50", num_classes=2, stride_first=True, output_stride=16).backbone.body
    assert (body.layer2[0].conv1.stride, body.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    body = nls.create_model("fcn", "mobilenetv2_050", num_classes=2, wiring="mmseg").backbone.body
    assert [block.conv_dw.dilation[0] for block in body.blocks[3]] == [2, 1, 1, 1]
    model = nls.create_model("aspp", "resnet18", num_classes=2, wiring="mmseg", multi_grid=(1, 2), norm_eps=1e-3)
    assert [block.conv1.dilation[0] for block in model.backbone.body.layer4] == [1, 2]
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    body = nls.create_model("fcn", "resnet50", num_classes=2, dilations=(2, 4), output_stride=32).backbone.body
    assert [block.conv2.stride[0] for layer in (body.layer3, body.layer4) for block in layer] == [2, *5 * [1], 2, 1, 1]
    assert [block.conv2.dilation[0] for layer in (body.layer3, body.layer4) for block in layer] == [
        1,
        *5 * [2],
        2,
        4,
        4,
    ]
    with pytest.raises(ValueError, match="dilations: mobilenetv2_050 is no ResNet"):
        nls.create_model("fcn", "mobilenetv2_050", num_classes=2, dilations=(2, 4))
    with pytest.raises(ValueError, match="stride_first: resnet18 has no bottleneck blocks"):
        nls.create_model("fcn", "resnet18", num_classes=2, stride_first=True)
