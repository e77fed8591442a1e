"""What every head and every network of mmsegmentation's configs has: inputs, norms, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nonlocalseg.conversion.described import Triple
from nonlocalseg.conversion.rules import Field, Values, computed, fixed, same, take_fields, tupled

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_NORMS = ("BN", "SyncBN", "BN2d", "MMSyncBN", "naiveSyncBN")
_WITHOUT_EFFECT = frozenset(
    {
        "type",
        "in_channels",
        "num_classes",
        "threshold",
        "loss_decode",
        "ignore_index",
        "sampler",
        "init_cfg",
        "norm_cfg",
    }
)


def take_head(
    given: Values,
    fields: tuple[Field, ...],
    without: frozenset[str],
    stages: tuple[int, ...],
    wanted: tuple[int, ...],
    where: str,
) -> dict[str, object]:
    places = _places(given.get("in_index", -1), stages, where)
    count, single = class_count(given), len(wanted) == 1

    def binary(value: object, _: Values) -> Values:
        if value not in (None, count):
            raise ValueError("a head with one output for two classes is not known here")
        return {}

    def where_from(value: object, _: Values) -> Values:
        if tupled(value) not in (tuple(stage - 2 for stage in wanted), wanted[0] - 2 if single else None):
            raise ValueError(f"only features {', '.join(str(stage - 2) for stage in wanted)} are known here")
        return {}

    def activation(value: object, _: Values) -> Values:
        if not isinstance(value, Mapping) or value.get("type") != "ReLU":
            raise ValueError("only ReLU is known here")
        return {}

    every = (
        same("align_corners", "align_corners", default=False),
        fixed("conv_cfg", None),
        computed("act_cfg", activation, lambda _: {"type": "ReLU"}, {"type": "ReLU"}),
        fixed("input_transform", None if single else "multiple_select"),
        computed("in_index", where_from, lambda _: None),
        computed("out_channels", binary, lambda _: None, None),
    )
    own = {field.name for field in fields}
    both = (*(field for field in every if field.name not in own), *fields)
    return take_fields(both, {**given, "in_index": places}, where, without | (_WITHOUT_EFFECT - own))


def _places(given: object, stages: tuple[int, ...], where: str) -> object:
    """in_index as stages minus 2, whatever the backbone hands out."""
    several = given if isinstance(given, (list, tuple)) else [given]
    found = []
    for place in several:
        if not isinstance(place, int) or not -len(stages) <= place < len(stages):
            raise ValueError(f"{where}.in_index={given!r}: the backbone has {len(stages)} outputs")
        found.append(stages[place] - 2)
    return tuple(found) if isinstance(given, (list, tuple)) else found[0]


def type_of(given: Values) -> str:
    return str(given.get("type", "")).rpartition(".")[2]


def class_count(given: Values) -> int:
    count = given.get("num_classes", 19)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"decode_head.num_classes={count!r} is no number of classes")
    return count


def epsilon(parts: Sequence[object]) -> dict[str, object]:
    """norm_eps, which is one number for the whole network."""
    found = []
    for part in parts:
        norm = part.get("norm_cfg", {"type": "BN"}) if isinstance(part, Mapping) else {"type": "BN"}
        if not isinstance(norm, Mapping) or norm.get("type") not in _NORMS:
            raise ValueError(f"norm_cfg={norm!r}: only {', '.join(_NORMS)} can be converted")
        refuse_unknown(norm, {"type", "requires_grad", "momentum", "eps"}, "norm_cfg")
        found.append(norm.get("eps", 1e-5))
    if any(eps != found[0] for eps in found):
        raise ValueError(f"norm_cfg.eps: {found}, but every norm of ours has the same")
    return {} if found[0] == 1e-5 else {"norm_eps": found[0]}


_PREPROCESSOR = {"type", "mean", "std", "bgr_to_rgb", "rgb_to_bgr", "to_rgb"}
_PREPROCESSOR |= {"size", "size_divisor", "pad_val", "seg_pad_val", "batch_augments", "test_cfg"}


def normalisation(config: Values, model: Values) -> tuple[Triple, Triple, bool, list[str]]:
    """Mean and deviation of RGB in [0, 1], and whether the network sees BGR; of 1.x's preprocessor or 0.x's pipeline."""
    given = model.get("data_preprocessor") or config.get("data_preprocessor") or config.get("img_norm_cfg")
    notes = [] if given else ["ImageNet's mean and deviation are assumed: the config has none"]
    found = mapping(given or {"mean": MEAN, "std": STD, "to_rgb": True}, "data_preprocessor")
    refuse_unknown(found, _PREPROCESSOR, "data_preprocessor")
    test = found.get("test_cfg")
    if isinstance(test, Mapping) and any(value is not None for value in test.values()):
        raise ValueError(f"data_preprocessor.test_cfg={dict(test)}: images of our networks are not padded")
    names = ("bgr_to_rgb", "rgb_to_bgr", "to_rgb")
    turned = any(found.get(name, name == "to_rgb" and given is config.get("img_norm_cfg")) for name in names)
    mean, std = _triple(found.get("mean", (0, 0, 0)), "mean"), _triple(found.get("std", (1, 1, 1)), "std")
    if turned:
        return mean, std, False, notes
    return (mean[2], mean[1], mean[0]), (std[2], std[1], std[0]), True, notes


def _triple(given: object, name: str) -> Triple:
    found = tupled(given)
    if not isinstance(found, tuple) or len(found) != 3 or not all(isinstance(x, (int, float)) for x in found):
        raise ValueError(f"data_preprocessor.{name}={given!r}: expected three numbers")
    first, second, third = (float(str(number)) / 255 for number in found)
    return first, second, third


def reduces(config: object) -> bool:
    """reduce_zero_label, wherever a config says it."""
    if isinstance(config, Mapping):
        return config.get("reduce_zero_label") is True or any(reduces(item) for item in config.values())
    return isinstance(config, (list, tuple)) and any(reduces(item) for item in config)


def mapping(given: object, where: str) -> Values:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: expected names and values, found {type(given).__name__}")
    return given


def refuse_unknown(given: Values, known: set[str], where: str) -> None:
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{where}.{unknown}={given[unknown]!r} is not known here and may change the network")
