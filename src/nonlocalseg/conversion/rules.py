"""How a head of mmsegmentation is one of ours, read both ways: one `HeadRule` each, of keys and of config fields.

A rule stands in `mmseg_heads.py` and its neighbours and is listed in `mmseg_config.py`. What every head of
mmsegmentation has (in_channels, in_index, num_classes, align_corners, norm_cfg, act_cfg, the losses, ...) is dealt with
there; a rule names the rest. A field that is neither named nor known to be without effect in inference is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from nonlocalseg.conversion.key_maps import Table

Values = Mapping[str, object]


class Required:
    """In the place of a default: mmsegmentation has none, and the config must say it."""


REQUIRED = Required()


@dataclass(frozen=True)
class Field:
    """One field of a head's config.

    `default` is mmsegmentation's where the config is silent. `take` turns its value, with the values of the other fields
    at hand, into options of ours; `give` makes it from the head's options by name. Both raise ValueError with a reason
    for what the other side lacks. `give` also finds the backbone's channels by stage, under "stage_channels".
    """

    name: str
    default: object
    take: Callable[[object, Values], Values]
    give: Callable[[Values], object]


def same(name: str, *options: str, default: object = REQUIRED) -> Field:
    """The value of `name` is that of our option, or of each of several."""

    def give(values: Values) -> object:
        found = [values[option] for option in options]
        if any(value != found[0] for value in found):
            raise ValueError(f"{' and '.join(options)} are one number there")
        return found[0]

    return Field(name, default, lambda given, _: dict.fromkeys(options, tupled(given)), give)


def fixed(name: str, value: object, default: object = REQUIRED, why: str = "") -> Field:
    """`name` must be `value`: ours has nothing else. `default`: `value` where it is left out."""
    usual = value if default is REQUIRED else default

    def take(given: object, _: Values) -> Values:
        if tupled(given) != tupled(value):
            raise ValueError(why or f"only {value!r} can be converted")
        return {}

    return Field(name, usual, take, lambda _: value)


def named(name: str, option: str, names: Mapping[object, object], default: object = REQUIRED) -> Field:
    """The values of `name` and those of our option correspond one by one: {theirs: ours}."""

    def take(given: object, _: Values) -> Values:
        found = tupled(given)
        if found not in names:
            raise ValueError(f"only {' and '.join(map(repr, names))} can be converted")
        return {option: names[found]}

    def give(values: Values) -> object:
        theirs = {ours: theirs for theirs, ours in names.items()}
        if values[option] not in theirs:
            raise ValueError(f"it has no {option}={values[option]!r}")
        return theirs[values[option]]

    return Field(name, default, take, give)


def computed(
    name: str, take: Callable[[object, Values], Values], give: Callable[[Values], object], default: object = REQUIRED
) -> Field:
    """`name` becomes options, and comes from them, by functions."""
    return Field(name, default, take, give)


class Shapes:
    """Shapes of a state dict, by their key below the head (decode_head.), for heads whose config is not at hand."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str) -> None:
        self.prefix = prefix
        self.found = {
            key.removeprefix(prefix): tuple(item.shape) for key, item in state.items() if key.startswith(prefix)
        }

    def __contains__(self, key: str) -> bool:
        return key in self.found

    def width(self, key: str, dimension: int = 0) -> int:
        """The length of one dimension, by default the first: a convolution's output channels."""
        shape = self.found.get(key)
        if shape is None or len(shape) <= dimension:
            raise ValueError(f"the checkpoint is truncated: {self.prefix}{key} is missing")
        return shape[dimension]

    def count(self, prefix: str) -> int:
        """How many numbers follow `prefix`: the modules of a list."""
        tails = (key.removeprefix(prefix).partition(".")[0] for key in self.found if key.startswith(prefix))
        return len({tail for tail in tails if tail.isdigit()})


def nothing(shapes: Shapes) -> Values:
    """What shapes tell of a head without widths of its own."""
    return {}


@dataclass(frozen=True)
class HeadRule:
    """One head of mmsegmentation as a model of ours in the wiring mmseg.

    theirs: its class there. model: our key of `MODELS`. evidence: the key below decode_head. by which a checkpoint
    without config is known. keys: modules below decode_head. -> modules below our head, without the classifier
    (conv_seg), which every head has. fields: its own config fields, and those of `DecodeHead` that mean something else
    here. without_effect: fields that inference does not read. stages: the stages that mmsegmentation hands it (in_index
    plus 2), lowest first. shapes: its own fields as the shapes of the weights tell them, where no config is at hand;
    `assumed` are those that shapes cannot tell, as mmsegmentation's own configs have them. means: what None stands for in
    options of ours that have it. output_stride: the backbone's where no config is at hand. coarse: where it is the second
    of a cascade, the fields of the FCNHead before it, or None; its keys then begin with 0. and 1., and name conv_seg.
    """

    theirs: str
    model: str
    evidence: str
    keys: Table
    fields: tuple[Field, ...] = ()
    without_effect: tuple[str, ...] = ()
    stages: tuple[int, ...] = (5,)
    shapes: Callable[[Shapes], Values] = nothing
    assumed: Values | None = None
    means: Values | None = None
    output_stride: int = 8
    coarse: tuple[Field, ...] | None = None
    classifier: str = "conv_seg"

    @property
    def table(self) -> Table:
        """Modules below decode_head. -> modules below our head, the classifier among them."""
        return {**self.keys, self.classifier: "classifier"} if self.coarse is None else self.keys


def usual(default_channels: str = "channels", dropout: str = "dropout") -> tuple[Field, ...]:
    """channels and dropout_ratio, as most heads have them, under the names of our options."""
    return same("channels", default_channels), same("dropout_ratio", dropout, default=0.1)


def take_fields(
    fields: tuple[Field, ...], given: Values, where: str, without_effect: frozenset[str]
) -> dict[str, object]:
    """Our options for the fields of a config; ValueError that names the field which has no place."""
    known = {field.name for field in fields} | without_effect
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise ValueError(f"{where}.{unknown}={given[unknown]!r} is not known here and may change the network")
    values = {field.name: given.get(field.name, field.default) for field in fields}
    options: dict[str, object] = {}
    for field in fields:
        value = values[field.name]
        if value is REQUIRED:
            raise ValueError(f"{where}.{field.name} is missing")
        try:
            options |= field.take(value, values)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}.{field.name}={value!r}: {error}") from None
    return options


def give_fields(fields: tuple[Field, ...], options: Values) -> dict[str, object]:
    """The fields of a config for our options; ValueError for what mmsegmentation lacks."""
    return {field.name: field.give(options) for field in fields}


def tupled(given: object) -> object:
    """Lists as tuples, so that [1, 3] is (1, 3)."""
    return tuple(tupled(item) for item in given) if isinstance(given, (list, tuple)) else given
