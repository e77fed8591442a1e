"""Values in words, as the page writes them: shares, options, the view of an evaluation, the machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from nonlocalseg.models.storage import BEST, saved_at
from nonlocalseg.report.gather import Findings
from nonlocalseg.timing.measuring import surroundings

PACKAGES = ("torch", "torchvision", "timm", "lightning")


def percent(share: float | None) -> str:
    """0.5 as 50.00; a dash for what is undefined."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def spelled(value: object) -> str:
    """An option's value for readers: yes and no, key = value, several with commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {spelled(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(spelled, value)) or "none"
    return str(value)


def told_setting(findings: Findings) -> str:
    """How the images were seen in the evaluation."""
    return ", ".join(findings.evaluation.settings.words())


def told_occasion(findings: Findings) -> str:
    """On what was measured, of when the model is, and when the report was written."""
    saved, written = saved_at(findings.run / BEST), datetime.now().astimezone()
    source = findings.measured.source
    shown = f"Measured on {source.describe()}: {told_setting(findings)}."
    model = f"Model of {saved.astimezone():%d %B %Y, %H:%M %Z}; report" if saved else "Report"
    return f"{shown} {model} of {written:%d %B %Y, %H:%M %Z}."


def told_start(findings: Findings) -> str:
    """What the training started from."""
    plan = findings.plan
    if plan.init_from:
        return f"the model {plan.init_from}"
    if plan.backbone_weights:
        return f"backbone weights {plan.backbone_weights}"
    return "ImageNet weights of the backbone" if plan.pretrained else "random weights"


def told_machine(findings: Findings) -> str:
    """The versions and the machine that the figures belong to."""
    about = surroundings(findings.device)
    versions = [f"nonlocalseg {about['nonlocalseg']}", f"Python {about['python']}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # built from source without metadata
            continue
    return f"{', '.join(versions)}; {about['device']}; {platform.system()} {platform.machine()}."
