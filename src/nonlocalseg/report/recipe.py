"""The recipe as tables, with what differs from the defaults set off, and the curves of the training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nonlocalseg import drawing
from nonlocalseg.report.elements import Html, details, escaped, figure, grid, paragraph, png, section, spelled, table
from nonlocalseg.report.findings import Curve, Findings
from nonlocalseg.training.phases import Phase

# Fields of `Phase` by what they decide; one that is missing here is shown under "Further".
GROUPS: dict[str, str] = {
    "Data": "data root split val_split data_options",
    "Schedule": "steps batch_size optimizer rate head_rate_multiplier layer_decay power warmup_steps min_rate "
    "weight_decay norm_decay gradient_clip val_every",
    "Augmentation": "crop scale flip brightness class_balance",
    "Loss": "ohem ohem_threshold ohem_min_kept ohem_rule loss_average auxiliary_weight class_weights terms",
    "Weights": "frozen_backbone frozen_batchnorm ema",
}
CURVES = {
    "loss": ("Training loss", "nats", "{:.3g}"),
    "miou": ("mean IoU on the validation split", "mIoU", "{:.3f}"),
    "rate": ("Learning rate of the backbone", "rate", "{:.2g}"),
    "images_per_second": ("Speed of the training", "images per second", "{:.3g}"),
}


def recipe_section(findings: Findings) -> Html:
    plan = findings.plan
    fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__ if name not in ("phases", "recipe")}
    start = _start(findings)
    model = {"model": plan.model, "backbone": plan.backbone, "starts from": start, **plan.model_options}
    hidden = {"model", "backbone", "model_options", "pretrained", "backbone_weights", "init_from"}
    run = {"recipe": plan.recipe or "none, options alone"} | {k: v for k, v in fields.items() if k not in hidden}
    resolved = findings.model.config or {}
    text = (findings.run / "recipe.yaml").read_text(encoding="utf-8")
    return section(
        "recipe",
        "Recipe",
        paragraph(
            "Repeat the run with", Html(f"<code>nonlocalseg train {escaped(findings.run / 'recipe.yaml')}</code>.")
        ),
        grid(
            [
                table("The model", ("option", "value"), _rows(model)),
                table("The run", ("option", "value"), _rows(run)),
            ]
        ),
        _phases(plan.phases),
        details(
            "Every option of the model, as resolved",
            table("Options of the model, the defaults too", ("option", "value"), _rows(resolved.get("options", {}))),
        ),
        details("recipe.yaml", Html(f"<pre>{escaped(text)}</pre>")),
    )


def _phases(phases: tuple[Phase, ...]) -> Html:
    """One column per phase, bold where a value is not the default."""
    plain = Phase()
    names = [field.name for field in dataclasses.fields(Phase)]
    groups = {title: group.split() for title, group in GROUPS.items()}
    known = {name for group in groups.values() for name in group}
    groups["Further"] = [name for name in names if name not in known]
    rows = {
        title: [
            (_words(name), *(_cell(getattr(phase, name), getattr(plain, name)) for phase in phases)) for name in group
        ]
        for title, group in groups.items()
        if group
    }
    heads = [f"phase {n}" for n in range(1, len(phases) + 1)] if len(phases) > 1 else ["value"]
    caption = "The training; bold is what differs from the defaults"
    return table(caption, ("option", *heads), rows)


def _cell(value: Any, default: Any) -> Html:
    told = escaped(spelled(value))
    return Html(f"<strong>{told}</strong>") if value != default else told


def _rows(values: Mapping[str, Any]) -> list[tuple[str, Html]]:
    return [(_words(name), escaped(spelled(value))) for name, value in values.items()]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _start(findings: Findings) -> str:
    plan = findings.plan
    if plan.init_from:
        return f"the model {plan.init_from}"
    if plan.backbone_weights:
        return f"backbone weights {plan.backbone_weights}"
    return "ImageNet weights of the backbone" if plan.pretrained else "random weights"


def curves_section(findings: Findings) -> Html:
    if not findings.curves:
        return section("curves", "Training", paragraph("The run holds no metrics.csv, so there are no curves."))
    pictures = []
    for name, (title, unit, style) in CURVES.items():
        if name in findings.curves:
            pictures.append(_curve(title, unit, style, findings.curves[name]))
    more = [] if "miou" in findings.curves else [paragraph("There was no validation during the training.")]
    return section("curves", "Training", grid(pictures), *more)


def _curve(title: str, unit: str, style: str, phases: Mapping[str, Curve]) -> Html:
    lines = {phase or unit: curve for phase, curve in phases.items()}
    plot = drawing.curves(lines, title, "step", unit)
    plot.set_size_inches(5.6, 3.5)
    if len(lines) == 1 and (legend := plot.axes[0].get_legend()) is not None:
        legend.remove()
    told = []
    for phase, (steps, values) in phases.items():
        ends = [0, -1] if len(values) > 1 else [0]
        text = ", ".join(f"{style.format(values[end])} at step {steps[end]:.0f}" for end in ends)
        told.append(f"{phase}: {text}" if phase else text)
    if unit == "mIoU":
        best = max(
            (value, step) for steps, values in phases.values() for step, value in zip(steps, values, strict=True)
        )
        told.append(f"highest {best[0]:.3f} at step {best[1]:.0f}")
    text = "; ".join(told)
    return figure(png(plot), f"{title} by step: {text}", f"{title}: {text}.")
