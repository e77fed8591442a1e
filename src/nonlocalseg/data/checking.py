"""What is wrong with a data set, said before training: reads every pair and names the usual mistakes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nonlocalseg.data.dataset import SegmentationDataset
from nonlocalseg.data.mistakes import Problem, jpeg_masks, lossy, misfits, off_by_one, unreadable
from nonlocalseg.data.source import DataSource
from nonlocalseg.labels import IGNORE, LabelError, RawValue

Progress = Callable[[Iterable[int]], Iterable[int]]

_SHOWN = 10  # problems of one kind that `text` spells out
_MOSTLY_IGNORED = 0.5
Digests = dict[bytes, tuple[str, Path]]
"""The pixels of an image -> the split and the file that had them first."""


@dataclass
class SplitSummary:
    """What one split holds. sizes: "WIDTHxHEIGHT" -> images; pixels: of each class; seen: raw value -> pixels.
    copies: images that an earlier split has as well, "file = file"."""

    split: str
    images: int = 0
    labels: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    pixels: list[int] = field(default_factory=list)
    ignored: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    copies: list[str] = field(default_factory=list)


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
    source.read_options()
    for split in splits or ():
        source.check(split)
    report = Report(source.data, str(source.root or "(drawn)"))
    digests: Digests = {}
    for split in splits or source.disjoint_splits():
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
        summary, problems = _check_split(dataset, progress or iter, digests)
        report.splits.append(summary)
        report.problems += problems
        report.notes += _notes(dataset, summary)
    return report


def _check_split(
    dataset: SegmentationDataset, progress: Progress, digests: Digests
) -> tuple[SplitSummary, list[Problem]]:
    summary = SplitSummary(dataset.split, images=len(dataset), pixels=[0] * len(dataset.classes))
    problems: list[Problem] = []
    unknown: Counter[RawValue] = Counter()
    if not len(dataset):
        message = dataset.unlike or f"no image/label pairs in split {dataset.split}"
        problems.append(Problem("empty", str(dataset.root), message))
    for index in progress(range(len(dataset))):
        found, counts = _check_pair(dataset, index, summary, digests)
        problems += found
        unknown.update(counts)
    shift = off_by_one(dataset, summary.seen, unknown)
    if shift is not None:
        problems = [shift, *(problem for problem in problems if problem.name not in ("unknown value", "0/255 mask"))]
    if blurred := lossy(dict.fromkeys(pair.label for pair in dataset.pairs if pair.label)):
        same = {str(file) for file in blurred}
        followed = ("unknown value", "anti-aliased mask", "0/255 mask")
        problems = [one for one in problems if one.file not in same or one.name not in followed]
        problems.insert(0, jpeg_masks(blurred))
    if summary.ignored and not any(summary.pixels):
        message = f"every pixel of {dataset.split} is ignored; give the values of the masks a class in the class map"
        problems.append(Problem("nothing labelled", str(dataset.root), message))
    return summary, problems


def _check_pair(
    dataset: SegmentationDataset, index: int, summary: SplitSummary, digests: Digests
) -> tuple[list[Problem], dict[RawValue, int]]:
    """What is wrong with one pair, and the pixels of each unknown value; adds what it reads to `summary`."""
    problems: list[Problem] = []
    image = raw = None
    try:
        image = dataset.read_image(index)
        summary.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
        _compare(dataset.split, dataset.pairs[index].image, image, summary, digests)
    except (ValueError, OSError) as error:
        problems.append(unreadable(str(dataset.pairs[index].image), error))
    file = str(dataset.pairs[index].label)
    try:
        raw = dataset.raw_label(index)
    except (ValueError, OSError) as error:
        problems.append(unreadable(file, error))
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
        problems += misfits(file, raw, error)
        return problems, error.counts
    except ValueError as error:
        problems.append(Problem("label not understood", file, str(error)))
        return problems, {}
    counts = np.bincount(label.reshape(-1), minlength=IGNORE + 1)
    summary.pixels = [old + int(new) for old, new in zip(summary.pixels, counts, strict=False)]
    summary.ignored += int(counts[IGNORE])
    return problems, {}


def _compare(split: str, file: Path, image: np.ndarray, summary: SplitSummary, digests: Digests) -> None:
    """Note the picture where another split has the same pixels."""
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
    first_split, first = digests.setdefault(digest, (split, file))
    if first_split != split:
        summary.copies.append(f"{file} = {first}")


def _notes(dataset: SegmentationDataset, summary: SplitSummary) -> list[str]:
    split, notes = dataset.split, list(dataset.notes)
    expected = dataset.expected_counts.get(split)
    if expected is not None and expected != summary.images:
        notes.append(f"{split} has {summary.images} images, the published data set {expected}")
    absent = [name for name, count in zip(dataset.classes, summary.pixels, strict=True) if count == 0]
    if any(summary.pixels) and absent:
        notes.append(f"{split} never shows {', '.join(absent)}; if it should, compare values and class map")
    share = summary.ignored / max(1, summary.ignored + sum(summary.pixels))
    if any(summary.pixels) and share > _MOSTLY_IGNORED:
        notes.append(f"{100 * share:.0f} % of the pixels of {split} are ignored, and teach nothing; is that meant?")
    if summary.copies:
        count = f"{len(summary.copies)} images of {split} are" if len(summary.copies) > 1 else f"1 image of {split} is"
        cure = "scores will be too good; keep each image in one split"
        notes.append(f"{count} in another split as well ({summary.copies[0]}): {cure}")
    return notes
