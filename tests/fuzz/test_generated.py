"""Texts and values that hypothesis makes up: taken, or refused with a ValueError of one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nonlocalseg.conversion.config_text import parse
from nonlocalseg.data import run_lengths
from nonlocalseg.data.class_files import read_classes
from nonlocalseg.data.coco_format import read_annotations
from nonlocalseg.data.cvat import read_cvat
from nonlocalseg.data.exports import read_labelmap
from nonlocalseg.data.geojson import read_geojson
from nonlocalseg.data.label_studio import read_label_studio
from nonlocalseg.data.outlines import fill_rings
from nonlocalseg.exporting.archive import is_arithmetic
from nonlocalseg.exporting.passport import read_passport
from nonlocalseg.serving.limits import checked_name
from nonlocalseg.training.plan import read_plan
from nonlocalseg.zoo.entries import find_entry

settings.register_profile(
    "always the same",
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("always the same")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def answered(read: Callable[..., object], *given: object) -> object:
    """What was read, or None where it was refused."""
    try:
        return read(*given)
    except (ValueError, OSError) as error:
        said = str(error)
    assert "\n" not in said
    return None


JSON: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "instances_a.json": (read_annotations, ("images", "annotations", "categories")),
    "panoptic_a.json": (read_annotations, ("images", "annotations", "categories")),
    "a.geojson": (read_geojson, ("type", "features", "width", "height", "classes")),
    "tasks.json": (read_label_studio, ("data", "annotations", "predictions")),
    "recipe.yaml": (read_plan, ("phases", "model", "seed")),
}


@pytest.mark.parametrize("name", JSON)
@given(data=st.data())
def test_annotations_and_recipes(tmp_path, name, data):
    read, keys = JSON[name]
    content = data.draw(st.fixed_dictionaries({}, optional={key: values for key in keys}))
    path = tmp_path / name
    path.write_text(json.dumps([content] if name == "tasks.json" else content))
    answered(read, path)


TEXTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes.yaml": (read_classes, "masks:\n  0: {}\n  {}: road\n"),
    "labelmap.txt": (read_labelmap, "{}:1,2,3::\nroad:{}::\n"),
    "annotations.xml": (read_cvat, '<annotations><image name="{}" width="{}" height="2"></image></annotations>'),
}


@pytest.mark.parametrize("name", TEXTS)
@given(first=st.text(max_size=20), second=st.text(max_size=20) | st.integers().map(str))
@example(first="!!python/object/apply:os.system [x]", second="*a")
@example(first="\x1b[31m", second="9" * 5000)
def test_texts(tmp_path, name, first, second):
    read, form = TEXTS[name]
    path = tmp_path / name
    path.write_bytes(form.format(first, second).encode(errors="surrogatepass"))
    answered(read, path)


@given(values | st.text())
def test_passports(content):
    answered(read_passport, content if isinstance(content, str) else json.dumps(content), Path("a.onnx"))


@given(st.text())
@example("a = " + "(" * 500)
@example("a = 9 ** 9 ** 9 ** 9")
def test_configs_of_checkpoints(text):
    answered(parse, text)


@given(st.text())
def test_names_of_the_zoo(text):
    entry = answered(find_entry, repr(text))
    assert entry is None


@given(st.text())
def test_names_that_clients_give(text):
    name = checked_name(text)
    assert name
    assert name.isprintable()
    assert len(name) <= 80
    assert not set(name) & {"/", "\\"}
    assert name not in (".", "..")


@given(st.integers(0, 12), st.integers(0, 12), st.lists(st.integers(-3, 200), max_size=8) | st.text(max_size=12))
def test_run_lengths(height, width, counts):
    mask = answered(run_lengths.decode, {"size": (height, width), "counts": counts}, (height, width))
    assert mask is None or (isinstance(mask, np.ndarray) and mask.shape == (height, width))


corner = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(st.tuples(corner, corner), min_size=1, max_size=6), max_size=3))
def test_polygons_fill_their_image_alone(rings):
    mask = fill_rings([np.array(ring) for ring in rings], (7, 5))
    assert mask.shape == (7, 5)


@given(st.text())
@example("Add(Symbol('s0', positive=True), Integer(-1))")
@example("Symbol.mro()")
@example("Symbol('a' + __import__('os').name)")
@example("[Integer(1) for x in Integer]")
@example("(lambda: Integer)()")
def test_expressions_hold_no_code(text):
    """What passes is made of known names and brackets."""
    if is_arithmetic(text):
        assert not set(text) & set("[]{};:\\\n@`")
        assert "__" not in text
        assert ")." not in text
        assert "lambda" not in text
