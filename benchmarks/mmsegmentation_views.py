"""Our named views against mmsegmentation's own test pipelines: the share of pixels with the same class.

    python -m benchmarks.mmsegmentation_views PHOTO ... [--views mmseg-ade20k ...]   # ANN on ResNet-50, drawn weights
    python -m benchmarks.mmsegmentation_views --write tests/golden/mmsegmentation_views.npz

It needs the packages of benchmarks/requirements.txt, and runs mmsegmentation's `inference_model`, and its test-time
augmentation for the views called multi-scale. --write stores the masks of a small network, and images that OpenCV
resized, for `tests/inference/test_published_pipelines.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.mmsegmentation import import_mmsegmentation, ours_of, their_model
from nonlocalseg.images import channels_first, read_image
from nonlocalseg.inference.engine import classify, infer
from nonlocalseg.view import VIEWS, View, find_view

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "inference"))
from grid_network import CLASSES, MEAN, STD, grid_scores, photograph  # beside the test that reads the masks

NAMES = [name for name in VIEWS if name.startswith("mmseg")]
DATA = {"mmseg-cityscapes": "cityscapes", "mmseg-cityscapes-769": "cityscapes_769x769", "mmseg-ade20k": "ade20k"}
DATA["mmseg-pascal-context"] = "pascal_context_59"
SIZES, CV_SIZES = ((75, 100), (96, 64)), ((60, 88), (30, 41), (23, 90))


class Theirs:
    """A model of mmsegmentation with the test pipeline of a view's data set."""

    def __init__(self, model: Any, name: str) -> None:
        import mmseg
        from mmengine.config import Config, ConfigDict

        self.augmented = name.endswith("-multi-scale")
        single, view = name.removesuffix("-multi-scale"), find_view(name)
        data = DATA.get(single, "ade20k")
        base = Path(mmseg.__file__).parent / ".mim" / "configs" / "_base_" / "datasets"
        # of the data sets in several crops only the plain file has the augmentation
        of_data = Config.fromfile(base / f"{data}.py")
        augmented = Config.fromfile(base / f"{data.removesuffix('_769x769')}.py").tta_pipeline
        self.model = model.eval()
        windows = {"mode": "slide", "crop_size": view.crop, "stride": view.stride}
        model.test_cfg = ConfigDict(windows if view.mode == "slide" else {"mode": "whole"})
        model.cfg = Config({"test_pipeline": of_data.test_pipeline, "tta_pipeline": augmented})

    def mask(self, image: np.ndarray) -> np.ndarray:
        """uint8 RGB [H, W, 3] -> classes [H, W]."""
        from mmengine.dataset import Compose
        from mmseg.apis import inference_model
        from mmseg.models import SegTTAModel

        blue_green_red = np.ascontiguousarray(image[..., ::-1])
        if not self.augmented:
            return inference_model(self.model, blue_green_red).pred_sem_seg.data[0].numpy()
        load, augment = self.model.cfg.tta_pipeline
        steps = [[s for s in step if s.type != "LoadAnnotations"] for step in augment.transforms]
        steps[-1][0]["meta_keys"] = ("ori_shape", "img_shape", "pad_shape", "scale_factor", "flip", "flip_direction")
        augment = {**augment, "transforms": [step for step in steps if step]}
        seen = Compose([{**load, "type": "LoadImageFromNDArray"}, augment])({"img": blue_green_red})
        with torch.no_grad():
            found = [
                self.model.test_step({"inputs": [image], "data_samples": [sample]})[0]
                for image, sample in zip(seen["inputs"], seen["data_samples"], strict=True)
            ]
        for sample in found:
            sample.set_metainfo({"img_path": ""})
        return SegTTAModel(self.model).merge_preds([found])[0].pred_sem_seg.data.numpy()


def grid_model(align_corners: bool) -> Any:
    """mmsegmentation's EncoderDecoder around the small network of the test."""
    models, _ = import_mmsegmentation()
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.registry import MODELS

    class Grid(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return (grid_scores(images),)

    class Passing(BaseDecodeHead):
        def forward(self, features: tuple[Tensor, ...]) -> Tensor:
            return features[0]

    for part in (Grid, Passing):
        MODELS.register_module(module=part, force=True)
    head = {"in_channels": CLASSES, "channels": CLASSES, "num_classes": CLASSES, "align_corners": align_corners}
    return models.EncoderDecoder({"type": "Grid"}, {"type": "Passing", **head}, data_preprocessor=preprocessor())


def preprocessor() -> dict[str, Any]:
    numbers = {name: [255 * value for value in values] for name, values in (("mean", MEAN), ("std", STD))}
    return {"type": "SegDataPreProcessor", **numbers, "bgr_to_rgb": True, "size_divisor": 1, "test_cfg": {}}


def ann(align_corners: bool, photo: np.ndarray) -> Any:
    """ANN with drawn weights, whose classes are all equally likely on a photograph: the hardest case."""
    from mmseg.registry import MODELS

    model: Any = their_model(50, align_corners)
    model.data_preprocessor = MODELS.build(preprocessor())
    small = View(average="logits", short_side=256)
    logits = infer(ours_of(model), channels_first(photo)[None], small)[0].flatten(1)
    last = model.decode_head.conv_seg
    last.bias.data = (last.bias.data - logits.mean(1)) / logits.std(1)
    last.weight.data /= logits.std(1)[:, None, None, None]
    return model


def compare(photos: list[str], names: list[str]) -> None:
    for name in names:
        align_corners = "769" in name
        for photo in photos:
            image = read_image(photo)
            model = ann(align_corners, image)
            theirs = Theirs(model, name).mask(image)
            ours = classify(ours_of(model), channels_first(image)[None], find_view(name), align_corners=align_corners)
            same = float((ours[0].numpy() == theirs).mean())
            size = f"{image.shape[0]} x {image.shape[1]}"
            print(
                f"{name:34} {Path(photo).name:22} {size:12} {len(np.unique(theirs)):3} classes  {100 * same:.4f} %",
                flush=True,
            )


def write(path: str) -> None:
    import cv2

    masks = {}
    for name in NAMES:
        for height, width in SIZES:
            found = Theirs(grid_model("769" in name), name).mask(photograph(height, width))
            masks[f"{name}-{height}x{width}"] = found.astype(np.uint8)
    for height, width in CV_SIZES:
        masks[f"opencv-{height}x{width}"] = cv2.resize(photograph(45, 66), (width, height))
    np.savez_compressed(path, **masks)
    print(f"{len(masks)} arrays in {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", metavar="PHOTO")
    parser.add_argument("--views", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--write", metavar="FILE")
    options = parser.parse_args()
    import_mmsegmentation()
    from mmengine.registry import init_default_scope

    init_default_scope("mmseg")
    if options.write:
        write(options.write)
    compare(options.photos, options.views)


if __name__ == "__main__":
    main()
