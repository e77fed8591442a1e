"""The card of a model on the hub: what it is and for what, its data and their terms, recipe, figures and limits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nonlocalseg.data.source import RECIPE
from nonlocalseg.evaluation.results import Evaluation
from nonlocalseg.inference.borrowed import fingerprint
from nonlocalseg.models.config import ModelConfig
from nonlocalseg.models.cost import parameter_count
from nonlocalseg.models.hub import load_saved
from nonlocalseg.models.segmenter import Segmenter
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.plan import Plan, read_plan
from nonlocalseg.values import names_of, options_of, plain
from nonlocalseg.zoo.entries import PREFIX, TERMS, find_entry

DRAWN, OWN = "synthetic", "folder"
ALWAYS = ("steps", "batch_size", "crop", "optimizer", "rate")
"""Fields of a phase that a card names whatever they are; the others where they are not the defaults."""
_PLACES = ("root", "data", "split", "val_split", "data_options", "val_every")
_WEAKEST = 3


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, and what is known of it. plan: of its training. evaluations: of these very weights, the newest first."""

    model: Segmenter
    config: ModelConfig
    plan: Plan | None = None
    evaluations: Sequence[Evaluation] = ()


def read_subject(source: Segmenter | str | Path, evaluations: Sequence[str | Path] = ()) -> Subject:
    """A model, the folder of one, or the folder of a run, whose recipe and evaluations belong to it.

    evaluations: the .json files of others. Raises ValueError for a model that was assembled by hand, and for an
    evaluation of other weights.
    """
    model = source if isinstance(source, Segmenter) else load_saved(source)
    if model.config is None:
        raise ValueError("this Segmenter was assembled by hand and cannot be pushed: build it with create_model()")
    weights, found = fingerprint(model), []
    for path in evaluations:
        found.append(Evaluation.read(path))
        if found[-1].settings.weights != weights:
            raise ValueError(f"{path}: an evaluation of other weights than these; evaluate this model")
    run = None if isinstance(source, Segmenter) else Path(source)
    if run is None or not (run / RECIPE).is_file():
        return Subject(model, model.config, None, found)
    stored = [path for path in (run / "evaluation").glob("*.json") if not path.stem.endswith("-comparison")]
    for path in sorted(stored, key=lambda path: -path.stat().st_mtime):
        try:
            evaluation = Evaluation.read(path)
        except (ValueError, OSError):  # `evaluate` says so; here it is as if there were none
            continue
        if evaluation.settings.weights == weights:
            found.append(evaluation)
    return Subject(model, model.config, read_plan(run / RECIPE), found)


def model_card(subject: Subject, repository: str, licence: str | None = None) -> str:
    """The card, whole, as README.md holds it on the hub.

    licence: of the weights, as the hub spells licences. By default apache-2.0 where all that they were trained on is
    drawn by this library, else `other`: the terms of the data decide, which the card names.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    config, figures = subject.config, subject.evaluations
    free = subject.plan is not None and all(line.startswith(f"`{DRAWN}`") for line in data_lines(subject))
    chosen = licence or ("apache-2.0" if free else "other")
    public = list(dict.fromkeys(name for name in _data_of(subject) if name not in (DRAWN, OWN)))
    about = ModelCardData(
        library_name="nonlocalseg",
        license=chosen,
        license_name="terms-of-the-training-data" if chosen == "other" else None,
        pipeline_tag="image-segmentation",
        tags=["semantic-segmentation", config.model, config.backbone],
        datasets=public or None,
        model_name=repository if figures else None,
        eval_results=[
            EvalResult(
                "image-segmentation",
                found.settings.source.data,
                found.settings.source.data,
                "mean_iou",
                round(found.scores.mean_iou, 4),
                dataset_split=found.settings.source.split,
                metric_name="mean IoU",
                metric_args={"interval_95": [round(bound, 4) for bound in found.interval]},
            )
            for found in figures
        ]
        or None,
    )
    about_licence = (
        "The weights follow from the data above, whose terms decide what may be done with them; the library itself is under "
        "Apache-2.0."
        if chosen == "other"
        else f"The weights: {chosen}, within the terms of the data above. The library itself: Apache-2.0."
    )
    card = ModelCard.from_template(
        about,
        template_path=str(Path(__file__).with_name("card.md.j2")),
        name=repository,
        repository=repository,
        config=config,
        parameters=f"{parameter_count(subject.model) / 1e6:.1f}",
        seen=", ".join(config.view.words()),
        weakest=_weakest(figures[0]) if figures else "",
        data=data_lines(subject),
        recipe=_recipe_rows(subject.plan) if subject.plan else [],
        figures=[_figures(found) for found in figures],
        classes=_class_rows(subject),
        licence=about_licence,
    )
    return str(card)


def data_lines(subject: Subject) -> list[str]:
    """What went into the weights, each with its owners' terms."""
    lines = []
    for phase in subject.plan.phases if subject.plan else ():
        checked = f", validated on {phase.val_split}" if phase.val_split else ""
        lines.append(f"`{phase.data}`, split {phase.split}{checked}. {terms_of(phase.data)}")
    plan, came = subject.plan, subject.config.converted_from or ""
    for start in dict.fromkeys(filter(None, (plan.init_from if plan else None, came))):
        about = (
            terms_of(find_entry(start).data) if start.startswith(PREFIX) else "What it was trained on counts as well."
        )
        lines.append(f"It began as the model `{_shown(start)}`. {about}")
    if plan and plan.backbone_weights:
        lines.append(
            f"Its backbone began with the weights `{_shown(plan.backbone_weights)}`, whose terms count as well."
        )
    elif plan and plan.pretrained is not False and not plan.init_from:
        lines.append(
            f"Its backbone began with timm's weights of `{plan.backbone}`, most likely from ImageNet, whose images are for "
            "research that is not commercial."
        )
    return list(dict.fromkeys(lines))


def terms_of(data: str) -> str:
    """What the owners of a data set allow, in one sentence."""
    if data == DRAWN:
        return "Drawn by this library, without anybody's rights."
    if data == OWN:
        return "Images of whoever trained it, who knows their terms."
    return f"Terms: {TERMS[data]}." if data in TERMS else "Its terms are not recorded here: ask its owners."


def _data_of(subject: Subject) -> list[str]:
    return [phase.data for phase in subject.plan.phases] if subject.plan else []


def _recipe_rows(plan: Plan) -> list[tuple[str, str]]:
    """What is not the default, and the fields that always count; no folder of the machine that it was trained on."""
    named = [("recipe", plan.recipe or "none of the published")]
    rows = [*named, *_differing(plan, Plan, ("model", "backbone", "seed", "precision"), ("recipe", "phases", "logger"))]
    for number, phase in enumerate(plan.phases, 1):
        before = f"phase {number}: " if len(plan.phases) > 1 else ""
        rows += [(before + name, item) for name, item in _differing(phase, Phase, ALWAYS, _PLACES)]
    return [(_cell(name), _cell(item)) for name, item in rows]


def _differing(given: object, kind: type, always: Sequence[str], never: Sequence[str]) -> list[tuple[str, str]]:
    found, options = plain(given), options_of(kind)
    names = [name for name in names_of(kind) if name not in never]
    names = [name for name in names if name in always or getattr(given, name) != options[name].default]
    return [(name.replace("_", " "), _shown(found[name])) for name in names]


def _shown(given: object) -> str:
    """An option's value, of paths their last part."""
    text = str(given)
    return Path(text).name if isinstance(given, str) and not given.startswith(PREFIX) and "/" in given else text


def _figures(found: Evaluation) -> list[str]:
    low, high = (_percent(bound) for bound in found.interval)
    scores, source = found.scores, found.settings.source
    interval = f"{_percent(scores.mean_iou)} ({low} to {high})"
    others = (_percent(scores.mean_accuracy), _percent(scores.pixel_accuracy), str(len(found.images)))
    return [_cell(f"{source.data}, {source.split}"), interval, *others, _cell(", ".join(found.settings.words()))]


def _class_rows(subject: Subject) -> list[list[str]]:
    shares = [_percent(share) for share in subject.evaluations[0].scores.iou.tolist()] if subject.evaluations else []
    return [
        [str(number), _cell(name), "#{:02x}{:02x}{:02x}".format(*colour), *shares[number : number + 1]]
        for number, (name, colour) in enumerate(zip(subject.config.classes, subject.config.palette, strict=True))
    ]


def _weakest(found: Evaluation) -> str:
    shares = zip(found.scores.iou.tolist(), found.classes, strict=True)
    rows = sorted((share, name) for share, name in shares if not math.isnan(share))
    return ", ".join(f"{_cell(name)} (IoU {_percent(share)} %)" for share, name in rows[:_WEAKEST])


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f}"


def _cell(text: str) -> str:
    """Text that Markdown leaves as it is, in a table too."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))
