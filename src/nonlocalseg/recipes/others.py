"""Recipes of the networks that ANN and GALD compare themselves with: the rows of others in both papers' tables."""

from __future__ import annotations

from collections.abc import Mapping

from nonlocalseg.recipes import ann, gald
from nonlocalseg.recipes.schema import Published, Recipe

BACKBONE = "resnet101s"
# DenseASPP's; timm does not dilate it.
DENSE = {"denseaspp": "densenet161"}
NOTE = (
    "The figure is what the network's own authors published, by settings of theirs; the training is that of the table's "
    "own rows, so that the table can be repeated on equal terms"
)

# Table -> for each of our models: whose figure it is, and their metrics.
ANN_ROWS: Mapping[str, Mapping[str, tuple[str, Mapping[str, float]]]] = {
    "3": {
        "psp": ("PSPNet", {"mIoU (test)": 78.4}),
        "psanet": ("PSANet", {"mIoU (test)": 80.1}),
        "denseaspp": ("DenseASPP", {"mIoU (test)": 80.6}),
    },
    "4": {
        "psp": ("PSPNet", {"mIoU": 43.29}),
        "upernet": ("UPerNet", {"mIoU": 42.65}),
        "psanet": ("PSANet", {"mIoU": 43.77}),
        "encnet": ("EncNet", {"mIoU": 44.65}),
    },
    "5": {"psp": ("PSPNet", {"mIoU": 47.8}), "encnet": ("EncNet", {"mIoU": 51.7})},
}
GALD_ROWS: Mapping[str, Mapping[str, tuple[str, Mapping[str, float]]]] = {
    "V": {
        "deeplabv3plus": (
            "DeepLabv3+",
            {f"boundary F {pixels} px": value for pixels, value in ((3, 69.7), (5, 74.7), (9, 78.7), (12, 80.1))},
        ),
    },
    "VI": {
        "psp": ("PSPNet", {"mIoU (test)": 78.4}),
        "denseaspp": ("DenseASPP", {"mIoU (test)": 80.6}),
        "ccnet": ("CCNet", {"mIoU (test)": 81.4}),
        "danet": ("DANet", {"mIoU (test)": 81.5}),
        "dgc": ("DGCNet", {"mIoU (test)": 82.0}),
        "ocr": ("OCRNet", {"mIoU (test)": 81.8}),
    },
    "VII": {
        "psp": ("PSPNet", {"mIoU (test)": 81.2}),
        "aspp": ("DeepLabv3", {"mIoU (test)": 81.3}),
        "deeplabv3plus": ("DeepLabv3+", {"mIoU (test)": 81.9}),
    },
    "VIII": {
        "psp": ("PSPNet", {"mIoU": 47.8}),
        "encnet": ("EncNet", {"mIoU": 51.7}),
        "danet": ("DANet", {"mIoU": 52.6}),
        "ann": ("ANN", {"mIoU": 52.8}),
        "emanet": ("EMANet", {"mIoU": 53.1}),
        "apc": ("APCNet", {"mIoU": 54.7}),
    },
    "IX": {
        "psp": ("PSPNet", {"mIoU": 43.29, "pixel accuracy": 81.39}),
        "psanet": ("PSANet", {"mIoU": 43.77, "pixel accuracy": 81.51}),
        "encnet": ("EncNet", {"mIoU": 44.65, "pixel accuracy": 81.69}),
        "ocr": ("OCRNet", {"mIoU": 45.28}),
        "ann": ("ANN", {"mIoU": 45.24}),
        "ccnet": ("CCNet", {"mIoU": 45.22}),
    },
    "XI": {"danet": ("DANet", {"mIoU (test)": 37.2}), "ocr": ("OCRNet", {"mIoU (test)": 39.5})},
}


def compared() -> tuple[Recipe, ...]:
    """All of them, trained as ANN's own rows of the same table, or as GALD's."""
    return *_like(ann.other_data(), "ANN", "in-ann", ANN_ROWS), *_like(_of_gald(), "GALD", "in-gald", GALD_ROWS)


def _of_gald() -> tuple[Recipe, ...]:
    return *gald.deeper(), *gald.test_server(), *gald.other_data()


def _like(
    own: tuple[Recipe, ...], paper: str, suffix: str, rows: Mapping[str, Mapping[str, tuple[str, Mapping[str, float]]]]
) -> list[Recipe]:
    made = []
    for table, networks in rows.items():
        name = f"{paper} Table {table}"
        beside, row = next((recipe, row) for recipe in own for row in recipe.published if row.table == name)
        *before, last = beside.phases
        variant = "-coarse" if before else "-test" if last.val_split is None else ""
        for model, (whose, figures) in networks.items():
            backbone = DENSE.get(model, BACKBONE)
            published = tuple(
                Published(name, metric, value, row.view, whose=whose) for metric, value in figures.items()
            )
            made.append(
                Recipe(
                    f"{last.data}/{model}-{backbone}{variant}-{suffix}",
                    model,
                    backbone,
                    beside.phases,
                    published=published,
                    notes=f"{NOTE}: see {beside.name}.",
                )
            )
    return made
