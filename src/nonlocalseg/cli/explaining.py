"""The verb that shows what models attend to and where they differ: explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nonlocalseg.cli.terminal import check_device, output
from nonlocalseg.files import check_folder

if TYPE_CHECKING:
    import numpy as np

    from nonlocalseg.explanations import Explanation
    from nonlocalseg.models.segmenter import Segmenter

Kind = Literal["anchors", "local", "masks", "stages", "errors", "features", "compare"]


def explain(
    model: str,
    image: str,
    *,
    out: str,
    pixel: tuple[int, int] | None = None,
    kind: Kind | None = None,
    compare: Sequence[str] | None = None,
    truth: str | None = None,
    backbone_weights: str | None = None,
    device: str | None = None,
) -> None:
    """Show where a model looks at one pixel, what its stages say, and how models differ, as pictures.

    MODEL is the folder of a run, a saved model, or a name on the Hugging Face hub; IMAGE is a photograph. Written to
    --out, as PNG and plots as SVG too, is everything that the model has and the options allow, or one --kind:

      anchors   the weights that the pixel gives to the anchors of each block (ANN; all positions of NB)
      local     the weights that the pixel gives to its neighbours (GALD with LDv2)
      masks     the mean of the masks (GALD with LDv1), those of --compare beside it
      stages    what each step of a GALD head predicts (trained with --stage-heads)
      errors    where the predictions differ from --truth
      features  the backbone's features as colours, those of --compare beside it
      compare   the predictions of MODEL and --compare side by side

    Attention says where a block looks. It does not say why the model decides as it does.

    Args:
        model: the model.
        image: the photograph.
        out: folder for the pictures.
        pixel: column and row of the pixel, counted from the top left; by default the middle of the photograph.
        kind: the only kind of picture to draw.
        compare: further models, shown beside the first.
        truth: label image of the photograph, PNG, class numbers with 255 where nothing is labelled.
        backbone_weights: other weights of the backbone, such as ImageNet's, whose features are shown beside the model's.
        device: cpu, cuda, cuda:1 ...; by default a GPU where there is one.

    Examples:
        nonlocalseg explain runs/demo/ann photo.jpg --pixel 320 200 --out explained
        nonlocalseg explain runs/gald photo.jpg --compare runs/ldga --kind masks --out explained
        nonlocalseg explain runs/ann photo.jpg --compare runs/fcn --truth label.png --kind errors --out explained
    """
    import nonlocalseg as nls
    from nonlocalseg.images import read_image

    folder, where = check_folder(out), check_device(device)
    pixels = read_image(image)
    labels = None if truth is None else _labels(truth, pixels)
    place = pixel if pixel is not None else (pixels.shape[1] // 2, pixels.shape[0] // 2)
    networks = {name: nls.from_pretrained(path).to(where) for name, path in _names([model, *(compare or ())]).items()}
    if backbone_weights is not None:
        networks_of_features = {
            **networks,
            Path(backbone_weights).stem: _with_backbone(model, backbone_weights).to(where),
        }
    else:
        networks_of_features = networks
    found = {name: nls.explain(network, pixels, place) for name, network in networks.items()}
    drawn = _Drawing(folder, Path(image).stem, found, labels, networks_of_features)
    written = [path for name, draw in drawn.kinds().items() if kind in (None, name) for path in draw()]
    if not written:
        raise ValueError(_MISSING.get(kind or "", f"--kind: {model} has no {kind}").format(model=model))
    output().print("\n".join(map(str, written)))


_MISSING = {
    "anchors": "--kind: {model} has no block that attends to anchors or positions; use an ANN or non-local model",
    "local": "--kind: {model} has no LDv2; use a model such as galdv2",
    "masks": "--kind: {model} has no LDv1; use a model such as galdv1",
    "stages": "--kind: {model} has no stage heads; train a GALD model with --stage-heads",
    "errors": "--truth: errors need the label image of the photograph; give one",
}


@dataclass(frozen=True)
class _Drawing:
    """Draws each kind of picture of what was found, and returns the files it wrote: none where there is nothing."""

    folder: Path
    photograph: str
    found: dict[str, Explanation]
    truth: np.ndarray | None
    networks: dict[str, Segmenter]

    def kinds(self) -> dict[str, Callable[[], list[Path]]]:
        return {
            "anchors": self.anchors,
            "local": self.local,
            "masks": self.masks,
            "stages": self.stages,
            "errors": self.errors,
            "features": self.features,
            "compare": self.compare,
        }

    def anchors(self) -> list[Path]:
        from nonlocalseg import drawing

        written = []
        for name, explanation in self.found.items():
            for block, seen in explanation.attention.items():
                listed = seen.listed(explanation.classes)
                title = f"{name}: attention of one pixel in {_BLOCKS.get(block, f'the fusion of stage {block[6:]}')}"
                figure = drawing.anchors_picture(
                    explanation.image, explanation.pixel, seen.weights, seen.boxes, seen.levels, listed, title
                )
                written += self._save(figure, f"anchors-{name}-{block}", svg=True)
        return written

    def local(self) -> list[Path]:
        from nonlocalseg import drawing

        written = []
        for name, explanation in self.found.items():
            if (seen := explanation.local) is not None:
                title = f"{name}: local affinity of one pixel (LDv2)"
                figure = drawing.local_picture(
                    explanation.image, explanation.pixel, seen.weights, seen.boxes, seen.inside, title
                )
                written += self._save(figure, f"local-{name}", svg=True)
        return written

    def masks(self) -> list[Path]:
        from nonlocalseg import drawing

        means = {name: e.mask.mean(0) for name, e in self.found.items() if e.mask is not None}
        if not means:
            return []
        figure = drawing.masks_picture(self._image, means, "Masks of LDv1", "mean of the mask M over channels (0 to 1)")
        return self._save(figure, "masks", svg=True)

    def stages(self) -> list[Path]:
        from nonlocalseg import drawing

        written = []
        for name, explanation in self.found.items():
            if explanation.stages:
                shown = {f"after {stage.upper()}": mask for stage, mask in explanation.stages.items()}
                shown["final prediction"] = explanation.prediction
                title = f"{name}: what linear heads read from each step"
                written += self._save(
                    drawing.comparison(self._image, shown, explanation.classes, explanation.palette, self.truth, title),
                    f"stages-{name}",
                )
        return written

    def errors(self) -> list[Path]:
        from nonlocalseg import drawing

        if self.truth is None:
            return []
        masks, classes, palette = self._predictions()
        picture = drawing.error_comparison(self._image, masks, self.truth, classes, palette, self.photograph)
        return self._save(picture, "errors")

    def features(self) -> list[Path]:
        from nonlocalseg import drawing
        from nonlocalseg.explanations import feature_components

        seen = feature_components(self.networks, self._image)
        note = "Principal components of the features" + (
            "" if len(self.networks) == 1 else ", one basis for all models" if seen.shared else ", each model its own"
        )
        figure = drawing.features_picture(
            self._image,
            {
                name: {f"stage {stage}": part for stage, part in parts.items()}
                for name, parts in seen.components.items()
            },
            {name: {f"stage {stage}": part for stage, part in parts.items()} for name, parts in seen.shares.items()},
            "Features of the backbone's stages",
            f"{note}; a colour's range is two standard deviations to either side of the mean.",
        )
        return self._save(figure, "features", svg=True)

    def compare(self) -> list[Path]:
        from nonlocalseg import drawing

        masks, classes, palette = self._predictions()
        return self._save(
            drawing.comparison(self._image, masks, classes, palette, self.truth, self.photograph), "compare"
        )

    @property
    def _image(self) -> np.ndarray:
        return next(iter(self.found.values())).image

    def _predictions(self) -> tuple[dict[str, np.ndarray], tuple[str, ...], tuple[tuple[int, int, int], ...]]:
        """By model; all must have the same classes."""
        first = next(iter(self.found.values()))
        for name, explanation in self.found.items():
            if explanation.classes != first.classes:
                raise ValueError(
                    f"--compare: {name} has other classes than the first model; compare models of one data set"
                )
        return {name: e.prediction.numpy() for name, e in self.found.items()}, first.classes, first.palette

    def _save(self, picture: object, name: str, svg: bool = False) -> list[Path]:
        from nonlocalseg import drawing

        suffixes = (".png", ".svg") if svg else (".png",)
        stem = f"{self.photograph}-{name}".replace("/", "-")
        return [drawing.save(picture, self.folder / f"{stem}{suffix}") for suffix in suffixes]  # type: ignore[arg-type]


_BLOCKS = {"context": "the context block", "aggregate": "global aggregation"}


def _names(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each model: the end of its path, as long as it takes to tell them apart."""
    if len(set(paths)) < len(paths):
        raise ValueError("--compare: a model is given twice; leave one out")
    parts = [Path(path).absolute().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["-".join(part[-length:]).strip("/") for part in parts]
        if len(set(names)) == len(names):
            return dict(zip(names, paths, strict=True))
    return {path: path for path in paths}


def _labels(path: str, pixels: np.ndarray) -> np.ndarray:
    from nonlocalseg.images import read_mask

    labels = read_mask(path)
    if labels.ndim != 2:
        raise ValueError(f"--truth: {path} holds colours; give class numbers (a grey or palette PNG)")
    if labels.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (labels.shape, pixels.shape)]
        raise ValueError(f"--truth: {path} is {sizes[0]} and the photograph {sizes[1]}; give its own label image")
    return labels


def _with_backbone(model: str, weights: str) -> Segmenter:
    """A model built like the one at `model`, whose backbone has the weights of a file; the rest is untrained."""
    import nonlocalseg as nls
    from nonlocalseg.models.presets import build

    config = nls.from_pretrained(model).config
    assert config is not None  # it was loaded
    plain = {name: value for name, value in config.items() if name not in ("options", "folded")}
    return build(plain, config["options"], backbone_weights=weights).eval()
