"""What is wrong with a data set, said before training: reads every pair and names the usual mistakes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.source import DataSource
from nonlocalseg.labels import IGNORE, LabelError, spell_counts

Progress = Callable[[Iterable[int]], Iterable[int]]

_SHOWN = 10  # problems of one kind that `text` spells out
_LOSSY = {".jpg", ".jpeg"}


@dataclass(frozen=True)
class Problem:
    """One thing to mend: the kind of mistake, the file, and what to do about it."""

    name: str
    file: str
    message: str


@dataclass
class SplitSummary:
    """What one split holds. sizes: "WIDTHxHEIGHT" -> images; pixels: of each class; seen: raw value -> pixels."""

    split: str
    images: int = 0
    labels: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    pixels: list[int] = field(default_factory=list)
    ignored: int = 0
    seen: Counter[int] = field(default_factory=Counter)


@dataclass
class Report:
    """The result of `check_dataset`; `problems` is empty where nothing is wrong, `notes` are worth a look."""

    data: str
    root: str
    classes: tuple[str, ...] = ()
    splits: list[SplitSummary] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def frequencies(self) -> list[float]:
        """The share of each class among the labelled pixels of all splits."""
        pixels = np.array([split.pixels for split in self.splits if split.pixels] or [[0] * len(self.classes)]).sum(0)
        return (pixels / max(pixels.sum(), 1)).tolist()

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for `json.dump`."""
        content = {
            **vars(self),
            "splits": [{**vars(split), "seen": dict(sorted(split.seen.items()))} for split in self.splits],
            "problems": [vars(problem) for problem in self.problems],
            "frequencies": self.frequencies,
        }
        return json.loads(json.dumps(content))  # tuples to lists, keys to text, as the file will have them

    def text(self) -> str:
        """For the terminal: counts and sizes, class frequencies, notes, problems by kind."""
        lines = [f"{self.data} in {self.root}"]
        for split in self.splits:
            sizes = ", ".join(f"{count} of {size}" for size, count in split.sizes.most_common(3))
            more = f" and {len(split.sizes) - 3} more sizes" if len(split.sizes) > 3 else ""
            lines.append(
                f"  {split.split:9} {split.images} images, {split.labels} labels: {sizes or 'none read'}{more}"
            )
        if any(split.pixels for split in self.splits):
            width = max(len(name) for name in self.classes)
            lines.append("classes, share of the labelled pixels")
            for name, share in zip(self.classes, self.frequencies, strict=True):
                lines.append(f"  {name:{width}} {100 * share:7.3f} %  {'#' * round(50 * share)}")
            total = max(1, sum(split.ignored + sum(split.pixels) for split in self.splits))
            lines.append(
                f"  {'(ignored)':{width}} {100 * sum(s.ignored for s in self.splits) / total:7.3f} % of all pixels"
            )
        lines += [f"note: {note}" for note in self.notes]
        for name, count in Counter(problem.name for problem in self.problems).items():
            lines.append(f"{name}: {count}")
            same = [problem for problem in self.problems if problem.name == name]
            lines += [f"  {problem.file}: {problem.message}" for problem in same[:_SHOWN]]
            lines += [f"  ... and {count - _SHOWN} more"] if count > _SHOWN else []
        count = len(self.problems)
        lines.append(f"{count or 'no'} problem{'' if count == 1 else 's'}")
        return "\n".join(lines)


def check_dataset(source: DataSource, splits: Sequence[str] | None = None, progress: Progress | None = None) -> Report:
    """Read every pair of a data set and report what it holds and what is wrong with it.

    splits: instead of the source's own; all by default. progress: wraps the indices of each split, for a progress bar.
    Whatever is broken in the folder becomes a `Problem`; only a data set, an option or a split that does not exist
    raises `ValueError`.
    """
    kind, options = source.kind(), source.read_options()
    for split in splits or ():
        source.check(split)
    report = Report(source.data, str(source.root or "(drawn)"))
    for split in splits or kind.disjoint_splits(Path(source.root or ".").expanduser(), options):
        try:
            dataset = source.open_split(split, strict=False)
        except (ValueError, OSError) as error:
            file, _, message = str(error).partition(": ")
            problem = Problem("cannot be opened", file if message else str(source.root), message or file)
            report.problems += [] if problem in report.problems else [problem]
            continue
        report.classes = dataset.classes
        report.problems += [
            Problem("missing partner", str(file), "no image or label of the same name beside it; add it or remove this")
            for file in dataset.unmatched
        ]
        summary, problems = _check_split(dataset, progress or iter)
        report.splits.append(summary)
        report.problems += problems
        report.notes += _notes(dataset, summary)
    return report


def _check_split(dataset: SegmentationDataset, progress: Progress) -> tuple[SplitSummary, list[Problem]]:
    summary = SplitSummary(dataset.split, images=len(dataset), pixels=[0] * len(dataset.classes))
    problems = []
    unknown: Counter[Any] = Counter()
    if not len(dataset):
        problems.append(Problem("empty", str(dataset.root), f"no image/label pairs in split {dataset.split}"))
    for index in progress(range(len(dataset))):
        found, counts = _check_pair(dataset, index, summary)
        problems += found
        unknown.update(counts)
    shift = _off_by_one(dataset, summary, unknown)
    if shift is not None:
        problems = [problem for problem in problems if problem.name != "unknown value"]
        problems.insert(0, shift)
    return summary, problems


def _check_pair(
    dataset: SegmentationDataset, index: int, summary: SplitSummary
) -> tuple[list[Problem], dict[Any, int]]:
    """What is wrong with one pair, and the pixels of each unknown value; adds what it reads to `summary`."""
    problems: list[Problem] = []
    image = raw = None
    try:
        image = dataset.read_image(index)
        summary.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
    except (ValueError, OSError) as error:
        problems.append(_unreadable(str(dataset.pairs[index].image), error))
    file = str(dataset.pairs[index].label)
    try:
        raw = dataset.raw_label(index)
    except (ValueError, OSError) as error:
        problems.append(_unreadable(file, error))
    if raw is None:
        return problems, {}
    summary.labels += 1
    if image is not None and raw.shape[:2] != image.shape[:2]:
        sizes = f"label {raw.shape[1]}x{raw.shape[0]}, image {image.shape[1]}x{image.shape[0]} (width x height)"
        problems.append(Problem("size mismatch", file, f"{sizes}; resize the label (nearest) or find its own image"))
    if raw.ndim == 2 and raw.dtype.kind in "iu" and raw.min(initial=0) >= 0:
        values = np.bincount(raw.reshape(-1))
        summary.seen.update({int(value): int(values[value]) for value in np.flatnonzero(values)})
    try:
        label = dataset.map_label(raw)
    except LabelError as error:
        problems.append(_misfit(file, raw, error))
        return problems, error.counts
    except ValueError as error:
        problems.append(Problem("label not understood", file, str(error)))
        return problems, {}
    counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
    summary.pixels = [old + int(new) for old, new in zip(summary.pixels, counts, strict=False)]
    summary.ignored += int(counts[IGNORE])
    return problems, {}


def _misfit(file: str, raw: np.ndarray, error: LabelError) -> Problem:
    """The name of the mistake behind a label that the class map does not fit."""
    if not error.counts and raw.ndim == 3:
        cure = "list its colours in the class map, or save the masks as grey or palette PNG"
        return Problem("RGB instead of values", file, f"the mask holds colours where values are expected; {cure}")
    if not error.counts:
        cure = "list the values in the class map, or convert the masks to RGB"
        message = "a grey or palette mask (palettes are read as indices) where colours are expected"
        return Problem("values instead of RGB", file, f"{message}; {cure}")
    if raw.ndim == 2 and 255 in error.counts and set(np.unique(raw).tolist()) <= {0, 255}:
        message = f"a black and white mask: 255 in {error.counts[255]} pixels has no class"
        return Problem("0/255 mask", file, f"{message}; map it (masks: {{0: background, 255: thing}})")
    hint = "add it to the class map (or `ignore` it), or repair the mask"
    if Path(file).suffix.lower() in _LOSSY:
        hint = "JPEG blurs values and cannot hold labels; export the masks as PNG"
    return Problem("unknown value", file, f"{spell_counts(error.counts)}; {hint}")


def _off_by_one(dataset: SegmentationDataset, summary: SplitSummary, unknown: Counter[Any]) -> Problem | None:
    """Whether the unknown values of a whole split vanish when all values move by one."""
    known = dataset.labels.meaning.values
    if not unknown or not known or not summary.seen:
        return None
    keys, seen = set(known), set(summary.seen)
    file = str(dataset.pairs[0].label.parent if dataset.pairs[0].label else dataset.root)
    if set(unknown) == {max(keys) + 1} and {value - 1 for value in seen - {0}} <= keys and len(seen) > 2:
        message = (
            f"values reach {max(seen)}, the class map ends at {max(keys)}: they seem to start at 1, with 0 for void"
        )
        return Problem("labels off by one", file, f"{message}; raise every value of the class map by one")
    starts_at_one = known.get(0) == IGNORE and 1 in keys
    if set(unknown) == {255} and starts_at_one and 0 in seen and max(keys) not in seen and len(seen) > 2:
        message = f"value {max(keys)} never occurs, 0 and 255 do: zero seems to be a class here and 255 void"
        return Problem("labels off by one", file, f"{message}; lower every value of the class map by one")
    return None


def _notes(dataset: SegmentationDataset, summary: SplitSummary) -> list[str]:
    notes = []
    expected = dataset.expected_counts.get(dataset.split)
    if expected is not None and expected != summary.images:
        notes.append(f"{dataset.split} has {summary.images} images, the published data set {expected}")
    absent = [name for name, count in zip(dataset.classes, summary.pixels, strict=True) if count == 0]
    if summary.labels and absent:
        notes.append(f"{dataset.split} never shows {', '.join(absent)}; if it should, compare values and class map")
    return notes


def _unreadable(file: str, error: Exception) -> Problem:
    return Problem("unreadable", file, str(error).removeprefix(f"{file}: "))
