"""Labels as COCO's instances, one for each class and image, in compressed run lengths (cocodataset.org, format)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from nonlocalseg.data.run_lengths import encode
from nonlocalseg.data.shapes import regions_of
from nonlocalseg.files import writing
from nonlocalseg.labels import Colour

INSTANCES = Path("annotations", "instances_default.json")


@contextmanager
def writing_coco(
    folder: Path, classes: Sequence[str], palette: Sequence[Colour]
) -> Iterator[Callable[[int, str, np.ndarray], None]]:
    """A function (number, name, class indices [H, W]) that adds an image; the file is in its place when the block ends."""
    categories = [
        {"id": number, "name": name, "supercategory": "", "color": list(colour)}
        for number, (name, colour) in enumerate(zip(classes, palette, strict=True), 1)
    ]
    images: list[dict[str, object]] = []
    count = 0
    with writing(folder / INSTANCES) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"info":{{"description":"nonlocalseg"}},"licenses":[],"categories":{_json(categories)},')
        file.write('"annotations":[')

        def add(number: int, name: str, mask: np.ndarray) -> None:
            nonlocal count
            height, width = mask.shape
            images.append({"id": number + 1, "file_name": name, "height": height, "width": width})
            for region in regions_of(mask):
                count += 1
                annotation = {
                    "id": count,
                    "image_id": number + 1,
                    "category_id": region.index + 1,
                    "segmentation": encode(mask == region.index),
                    "area": int(region.mask.sum()),
                    "bbox": region.box,
                    "iscrowd": 0,
                }
                file.write(("," if count > 1 else "") + "\n" + _json(annotation))

        yield add
        file.write(f'\n],\n"images":{_json(images)}}}\n')


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
