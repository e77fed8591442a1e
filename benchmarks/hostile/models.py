"""Models, checkpoints, exported files, evaluations, recipes and names: whole ones, changed, and read."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import nonlocalseg as nls
from benchmarks.hostile.cage import Caged, Kind
from benchmarks.hostile.changes import (
    CANARY,
    ODD,
    Change,
    changed_bytes,
    changed_header,
    changed_json,
    changed_safetensors,
    changed_text,
    changed_tree,
    changed_xml,
    changed_zip,
)
from benchmarks.hostile.pictures import photograph
from nonlocalseg.cli.errors import describe
from nonlocalseg.conversion import config_text
from nonlocalseg.conversion.checkpoints import convert
from nonlocalseg.conversion.mmseg_writing import to_mmseg
from nonlocalseg.conversion.reading import read_checkpoint
from nonlocalseg.data.source import source_of_run
from nonlocalseg.data.synthetic import Synthetic
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.models.creation import create_model
from nonlocalseg.models.storage import CONFIG, DIGEST, WEIGHTS
from nonlocalseg.training.plan import resolve, write_plan
from nonlocalseg.zoo.entries import all_entries, find_entry

BACKBONE = "test_resnet.r160_in1k"
IMAGE = torch.from_numpy(photograph(24, 32)).permute(2, 0, 1)[None].float() / 255
WRONG = (None, -1, 0, 10**9, 1e300, "x", "", [], {}, [1, "a"], {"type": 3}, True, [[]] * 3, (1, 2, 4))
"""In the place of a value of a config."""
RECIPES = ("synthetic/ann-resnet10t", "cityscapes/galdv1-resnet101s-coarse", "camvid/ann-resnet18")


def tiny(name: str = "fcn", classes: int = 3, **options: Any) -> nls.Segmenter:
    torch.manual_seed(0)
    return create_model(name, BACKBONE, num_classes=classes, channels=8, auxiliary_channels=8, **options).eval()


def answered(source: str | Path) -> Iterable[str]:
    """A model is loaded, and asked."""
    model = nls.from_pretrained(source)
    with torch.no_grad():
        model(IMAGE)
    return ()


def of_files(folder: Path, changes: dict[str, Change], after: Callable[[], None], ask: Callable[[], Any]) -> Caged:
    """One of the files of a folder is changed in each case, and the others are whole."""
    whole = {name: (folder / name).read_bytes() for name in [p.name for p in folder.iterdir() if p.is_file()]}

    def change(drawn: random.Random) -> None:
        chosen = drawn.choice(sorted(changes))
        for name, content in whole.items():
            (folder / name).write_bytes(changes[chosen](content, drawn) if name == chosen else content)
        after()

    return Caged(change, ask)


def configs(folder: Path) -> Caged:
    tiny("ann", key_channels=8, value_channels=8).save_pretrained(folder)
    return of_files(folder, {CONFIG: changed_json}, lambda: None, lambda: answered(folder))


def weights(folder: Path) -> Caged:
    """With the digest that the changed file has: whoever changes weights can change that too."""
    tiny().save_pretrained(folder)

    def sealed() -> None:
        config = json.loads((folder / CONFIG).read_text())
        config[DIGEST] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        (folder / CONFIG).write_text(json.dumps(config))

    return of_files(folder, {WEIGHTS: changed_safetensors}, sealed, lambda: answered(folder))


# --- Pickles ----------------------------------------------------------------------------------------------------


class Payload:
    """What a pickle would run."""

    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.function, self.given = function, given

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.given


def payloads() -> list[Payload]:
    name = f"/tmp/{CANARY}"
    return [
        Payload(os.system, f"touch {name}"),
        Payload(os.mkdir, name),
        Payload(open, name, "w"),
        Payload(eval, f"open({name!r}, 'w')"),
        Payload(exec, f"import os; os.mkdir({name!r})"),
        Payload(getattr, Payload(__import__, "os"), "system"),
        Payload(np.load, name),
        Payload(torch.load, name),
        Payload(torch.hub.load_state_dict_from_url, "http://127.0.0.1:9/x"),
    ]


def with_payload(kind: str, drawn: random.Random) -> bytes:
    """A file of this suffix that runs something where it is unpickled without care."""
    payload, buffer = drawn.choice(payloads()), io.BytesIO()
    if kind == ".npz":
        np.savez(buffer, names=np.array([payload], object), classes=np.array(["a"]), counts=np.zeros((1, 1, 3)))
    elif kind == ".npy":
        np.save(buffer, np.array([payload], object))
    elif drawn.random() < 0.3:
        pickle.dump({"state_dict": {"a": payload}}, buffer)  # as torch wrote it before 1.6
    else:
        content = {"state_dict": {"a": torch.ones(2), "b": payload}, "meta": {"c": payload}}
        torch.save(drawn.choice((content, payload, [payload])), buffer)
    return buffer.getvalue()


def changed_pickle(content: bytes, drawn: random.Random) -> bytes:
    names = (b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict", b"torch\nFloatStorage")
    other = (b"os\nsystem", b"builtins\neval", b"builtins\ngetattr", b"numpy\nload", b"torch\nload")
    if drawn.random() < 0.4:
        return content.replace(drawn.choice(names), drawn.choice(other), 1)
    return changed_bytes(content, drawn)


def checkpoints(folder: Path) -> Caged:
    """Of mmsegmentation's form; read_checkpoint and convert, as the verb convert and the zoo use them."""
    widths = {"channels": (8, 16, 32, 64), "stem_type": "deep", "stem_width": 4}
    options = {"channels": 8, "key_channels": 4, "value_channels": 4, "auxiliary_channels": 4}
    model = create_model("ann", "resnet18", num_classes=2, wiring="mmseg", backbone_options=widths, **options)
    torch.save(to_mmseg(model), folder / "a.pth")
    inside = changed_zip(lambda name: changed_pickle if name.endswith(".pkl") else changed_bytes)

    def change(content: bytes, drawn: random.Random) -> bytes:
        if drawn.random() < 0.25:
            return with_payload(".pth", drawn)
        if drawn.random() < 0.5:
            return inside(content, drawn)
        whole = torch.load(io.BytesIO(content))
        tensors: list[Any] = [torch.ones(()), torch.ones(3, 0), torch.ones(1, 2, 3, 4, 5), 7, "x", torch.ones(2).bool()]
        tensors += [torch.ones(1).expand(10**6, 10**5), torch.ones(2, dtype=torch.complex64), torch.ones(2).to_sparse()]
        state, meta = dict(whole["state_dict"]), whole["meta"]
        if drawn.random() < 0.4:
            state[drawn.choice(list(state))] = drawn.choice(tensors)
        elif drawn.random() < 0.3:
            meta = changed_tree(meta, drawn)
        elif drawn.random() < 0.5:
            meta = {**meta, "cfg": config_text.write(changed_tree(config_text.parse(meta["cfg"]), drawn, WRONG))}
        else:
            meta = {**meta, "cfg": changed_text(str(meta["cfg"]).encode(), drawn).decode(errors="replace")}
        buffer = io.BytesIO()
        torch.save({"state_dict": state, "meta": meta}, buffer)
        return buffer.getvalue()

    def ask() -> Iterable[str]:
        convert(read_checkpoint(folder / "a.pth"), "mmseg")
        return ()

    return of_files(folder, {"a.pth": change}, lambda: None, ask)


# --- Exported files ---------------------------------------------------------------------------------------------


def changed_onnx(content: bytes, drawn: random.Random) -> bytes:
    """A node, a tensor, a side, the passport; weights that would be read from files elsewhere."""
    import onnx

    if drawn.random() < 0.3:
        return (changed_bytes if drawn.random() < 0.7 else changed_header)(content, drawn)
    proto = onnx.load_from_string(content)
    graph, kind = proto.graph, drawn.randrange(7)
    odd = drawn.choice((-1, 0, 2, 2**20, 2**40, 2**62))
    tensor, node = drawn.choice(graph.initializer), drawn.choice(graph.node)
    if kind == 0:
        del tensor.dims[:]
        tensor.dims.extend([odd] * drawn.choice((0, 1, 3)))
    elif kind == 1:
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = drawn.choice(
            (f"../{CANARY}", f"/tmp/{CANARY}", "/etc/passwd", "/dev/zero", "model.onnx", "*/_ORT_MEM_ADDR_/*")
        )
        for key, item in (("location", place), ("offset", "0"), ("length", str(drawn.choice((4, 2**40))))):
            tensor.external_data.add(key=key, value=item)
    elif kind == 2:
        node.op_type = drawn.choice(("Conv", "Loop", "If", "Resize", "Tile", "Expand", "Nothing", "ConstantOfShape"))
    elif kind == 3 and node.attribute:
        attribute = drawn.choice(node.attribute)
        attribute.i, attribute.f = odd, float("nan")
        for place in range(len(attribute.ints)):
            attribute.ints[place] = odd
    elif kind == 4 and node.input:
        node.input[drawn.randrange(len(node.input))] = drawn.choice((node.output[0], "nothing", "images", ""))
    elif kind == 5:
        side = drawn.choice((*graph.input, *graph.output)).type.tensor_type.shape.dim
        side[drawn.randrange(len(side))].dim_value = odd
    else:
        entry = proto.metadata_props[0]
        entry.value = changed_json(entry.value.encode(), drawn).decode(errors="replace")
    return proto.SerializeToString()


def exported(suffix: str, changes: dict[str, Change]) -> Callable[[Path], Caged]:
    def prepare(folder: Path) -> Caged:
        nls.export(tiny(), folder / f"model{suffix}")
        return of_files(folder, changes, lambda: None, lambda: answered(folder / f"model{suffix}"))

    return prepare


def changed_pt2(content: bytes, drawn: random.Random) -> bytes:
    """A payload where a file of weights or constants was; texts that stand in the graph."""
    if drawn.random() < 0.5:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {item: archive.read(item) for item in archive.namelist()}
        name = drawn.choice([item for item in members if not item.endswith(tuple("0123456789"))])
        samples = next(item for item in members if "/sample_inputs/" in item)
        run = f"__import__('os').mkdir('/tmp/{CANARY}')"
        if drawn.random() < 0.3:
            members[samples] = with_payload(".pth", drawn)
        elif name.endswith("model.json"):
            text = members[name].decode()
            words = ('"expr_str": "', '"guards_code": null', '"name": "', '"target": "torch.ops.aten.relu.default')
            others = (f'"expr_str": "{run} + ', f'"guards_code": ["{run}"]', f'"name": "{run};')
            chosen = drawn.randrange(4)
            other = (
                *others,
                '"target": "' + drawn.choice(("torch.hub.load", "torch.ops.aten.save.default", "_operator.call")),
            )
            members[name] = text.replace(words[chosen], other[chosen], drawn.choice((1, -1))).encode()
        elif name.endswith(".json"):
            members[name] = members[name].replace(b'"use_pickle": false', b'"use_pickle": true')
            for item in members:
                if re.search(r"(weight|tensor)_\d+$", item):
                    members[item] = with_payload(".pth", drawn)
        else:
            members[name] = with_payload(".pth", drawn)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for item, data in members.items():
                archive.writestr(item, data)
        return buffer.getvalue()
    return changed_zip(lambda name: changed_json if name.endswith(".json") else changed_bytes)(content, drawn)


# --- Evaluations, recipes, names --------------------------------------------------------------------------------


def evaluations(folder: Path) -> Caged:
    made = folder / "made"
    nls.evaluate(
        tiny(classes=len(Synthetic.classes)), data="synthetic", data_options={"size": [48, 96], "length": 2},
        split="val", workers=0, progress=False, boundary=True, out=made, device="cpu",
    )  # fmt: skip
    for path in made.iterdir():
        shutil.move(path, folder / path.name)
    made.rmdir()
    (path,) = folder.glob("*.json")
    changed_npz = changed_zip()

    def change(content: bytes, drawn: random.Random) -> bytes:
        return with_payload(".npz", drawn) if drawn.random() < 0.2 else changed_npz(content, drawn)

    changes = {
        path.name: changed_json,
        f"{path.stem}-images.csv": changed_text,
        f"{path.stem}-counts.npz": change,
    }

    def ask() -> Iterable[str]:
        Evaluation.read(path).worst()
        return ()

    return of_files(folder, changes, lambda: None, ask)


def changed_recipe(content: bytes, drawn: random.Random) -> bytes:
    kind = drawn.random()
    if kind < 0.2:
        return changed_bytes(content, drawn)
    if kind < 0.45:
        return changed_text(content, drawn)
    if kind < 0.5:
        return b"a: &a [x, x]\n" + b"".join(b"a%d: &a%d [*a, *a]\n" % (n, n) for n in range(30)) + content
    return yaml.dump(changed_tree(yaml.safe_load(content), drawn), sort_keys=False).encode()


def recipes(folder: Path) -> Caged:
    texts = []
    for name in RECIPES:
        write_plan(folder / "recipe.yaml", resolve(name, {"root": str(folder)}))
        texts.append((folder / "recipe.yaml").read_bytes())

    def change(drawn: random.Random) -> None:
        (folder / "recipe.yaml").write_bytes(changed_recipe(drawn.choice(texts), drawn))

    def ask() -> Iterable[str]:
        found = []
        for read in (lambda: resolve(folder / "recipe.yaml", {}), lambda: source_of_run(folder)):
            try:
                read()
            except (ValueError, OSError) as error:
                found.append(str(error))
        return found

    return Caged(change, ask)


def names(folder: Path) -> Caged:
    """Of the zoo, the hub, folders, recipes: a name leads to a line, never to a file or host that it makes up."""
    importlib.import_module("huggingface_hub.hf_api")  # one of what it imports asks /sbin/ldconfig
    known = ["mmseg:", "official:", "hf:a/b@c", "hf:", "a/b", f"../{CANARY}", f"/tmp/{CANARY}", "~root", "model.onnx"]
    known += [f"mmseg:{entry.name}" for entry in all_entries()[::40]] + ["mmseg:ann-r50-ade20k", *RECIPES]
    current = ["mmseg:nothing"]

    def change(drawn: random.Random) -> None:
        texts = [item for item in ODD if isinstance(item, str)]
        name = drawn.choice((*known, *texts))
        if drawn.random() < 0.8:
            name = changed_text(name.encode(errors="surrogatepass") or b"x", drawn).decode(errors="surrogateescape")
        if drawn.random() < 0.3:
            name = drawn.choice(("mmseg:", "official:", "hf:", "")) + name
        current[0] = name

    def ask() -> Iterable[str]:
        found = []
        for read in (nls.from_pretrained, find_entry, lambda name: resolve(name, {})):
            try:
                read(current[0])
            except (ValueError, OSError) as error:
                found.append(describe(error)[0])  # with what was typed, line ends and all
        return found

    return Caged(change, ask)


KINDS = tuple(
    Kind(name, prepare, quiet=name != "names")
    for name, prepare in {
        "config.json": configs,
        "safetensors": weights,
        "checkpoints": checkpoints,
        "ONNX": exported(".onnx", {"model.onnx": changed_onnx}),
        "OpenVINO": exported(".xml", {"model.xml": changed_xml, "model.bin": changed_bytes}),
        "torch.export": exported(".pt2", {"model.pt2": changed_pt2}),
        "evaluations": evaluations,
        "recipes": recipes,
        "names": names,
    }.items()
)
