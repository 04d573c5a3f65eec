"""Reading a data set: every file behind a data.yaml, within bounds, and all that is wrong with it."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gradlib.data.data_yaml import GROUPS, DataYaml, find_groups, group_problems, read_data_yaml
from gradlib.data.faults import Fault, Problem, Refused, count_skipped
from gradlib.data.files import dataset_boundary, project_folder, relative
from gradlib.data.folders import SUFFIXES, image_folders, labelled_images
from gradlib.data.images import CACHE_BYTES, letterbox, read_rgb
from gradlib.data.labels import OneHot, parse, read_label_text, views_of

__all__ = ["Dataset", "Frame", "find_data_yaml", "read_dataset"]


@dataclass(frozen=True)
class Frame:
    """One image with its labels; `boxes` float32 [N, 5]: class index, cx, cy, w, h in 0-1."""

    image: Path
    boxes: np.ndarray
    view: int  # index into Dataset.views; -1 = has none
    patient: str
    video: str
    part: str  # "train", "valid" or "test", as published
    name: str  # the image's path from Dataset.root, with forward slashes
    size: tuple[int, int] | None = None  # width, height in pixels; None: not known yet
    square: torch.Tensor | None = field(
        default=None, repr=False, compare=False
    )  # uint8 [3, S, S], letterboxed

    @property
    def classes(self) -> list[int]:
        """The class indices of its boxes, each once."""
        return np.unique(self.boxes[:, 0]).astype(int).tolist()


@dataclass(frozen=True)
class Dataset:
    """What a data.yaml leads to. `fingerprint` changes with images and labels, not with the place."""

    root: Path
    classes: tuple[str, ...]
    views: tuple[str, ...]
    frames: tuple[Frame, ...]
    problems: tuple[Problem, ...]
    fingerprint: str

    @property
    def skipped(self) -> dict[str, int]:
        """How many images, rows, views, files and folders were left out."""
        return count_skipped(self.problems)

    def split(self, how: str = "patients", fold: int = 0, folds: int = 5) -> dict[str, list[Frame]]:
        """Frames by part, see `splits.split`."""
        from gradlib.data.splits import split  # it brings scikit-learn

        return split(self, how, fold, folds)


@dataclass(frozen=True)
class _Read:
    """A frame as read, its view and groups not known yet; `labels_file` is None where there is none."""

    frame: Frame
    digest: str  # of the image's bytes
    labels_file: str | None
    one_hot: OneHot | None


def find_data_yaml(data: str | Path) -> Path:
    """The data.yaml that `data` means: "phantom", or a path taken from the project folder."""
    if data == "phantom":
        from gradlib.data import phantom

        return phantom.ensure(project_folder() / "data")
    return Path(os.path.abspath(project_folder() / Path(data).expanduser()))


def read_dataset(data: str | Path, strict: bool = False, image_size: int | None = None) -> Dataset:
    """Read the data set `data` (see `find_data_yaml`): every image and label file in full.

    Keys of a data.yaml: `train`, `val` (or `valid`), `test` (folders), `names`, and optionally `path`, `nc`,
    `image_classes` (the views in one-hot order), `patient` and `video` (regular expressions over a file's
    stem: their first group, else the whole match). Raises one line naming file, key and value where nothing
    sensible can be read. Every lesser fault is in `Dataset.problems`, dealt with by the rule for its kind
    (`faults`); with `strict`, what would be skipped or guessed raises, too. With `image_size`, frames keep
    their decoded images for a `FrameSet` of that size, where all of them fit in memory.
    """
    path = find_data_yaml(data)
    settings = read_data_yaml(path)
    classes, views = tuple(settings.names), settings.image_classes
    problems = settings.problems()
    read = _read_files(settings, image_size, problems)
    if not read:
        first = f"; the first of {len(problems)} faults: {problems[0]}" if problems else ""
        known = " ".join(sorted(SUFFIXES))
        raise Refused(f"{path}: no readable image; known are {known}{first}", problems)
    views, indices, faults = views_of([(one.labels_file, one.one_hot) for one in read], views)
    stems = [one.frame.image.stem for one in read]
    groups = {key: find_groups(settings, key, stems) for key in GROUPS}
    problems += faults + group_problems(settings, stems, groups)
    frames, digest = [], hashlib.sha256(repr((classes, views)).encode())
    for i, one in enumerate(read):
        own = {key: found[i] or stems[i] for key, found in groups.items()}
        frame = replace(one.frame, view=indices[i], **own)
        frames.append(frame)
        place = (frame.part, frame.name, sorted(own.items()), one.digest, frame.view)
        digest.update(repr(place).encode() + frame.boxes.tobytes())
    problems += _repeated(frames, [one.digest for one in read])
    problems += _unused(settings, frames)
    against = [problem for problem in problems if problem.rule in ("skipped", "guessed")]
    if strict and against:
        first = f"the first of {len(against)} is {against[0]}"
        cure = f"`python -m gradlib check {path.name}` lists all"
        raise Refused(f"{path}: faults that strict refuses; {first}; {cure}", problems)
    return Dataset(path.parent, classes, views, tuple(frames), tuple(problems), digest.hexdigest())


def _read_files(settings: DataYaml, image_size: int | None, problems: list) -> list[_Read]:
    """The files of every frame that can be read."""
    root, found = settings.file.parent, []
    for part, folder in image_folders(settings, problems):
        images = list(labelled_images(folder, root, problems))
        found += [(part, image, labels) for image, labels in images]
        if not images:
            what, cure = "a folder without images", f"add images of {part}, or do not name it"
            problems.append(Problem(relative(folder, root), None, "", what, cure))
    boundary, read = dataset_boundary(root), []
    kept = image_size is not None and len(found) * 3 * image_size**2 <= CACHE_BYTES
    classes, views = len(settings.names), settings.image_classes and len(settings.image_classes)
    for part, image_file, labels_file in tqdm(found, "reading the data", delay=2):
        at = name = relative(image_file, root)
        try:
            image, notes, digest = read_rgb(image_file, boundary)
            # Without its boxes a frame would pass for background: it is left out with its labels.
            at = relative(labels_file, root) if labels_file else ""
            text = read_label_text(labels_file, boundary) if labels_file else ""
        except Fault as fault:
            problems.append(fault.at(at))
            continue
        labels = parse(text, at, classes, views)
        problems += [*(note.at(name) for note in notes), *labels.problems]
        square = letterbox(image, image_size) if kept else None
        frame = Frame(image_file, labels.boxes, -1, "", "", part, name, image.size, square)
        read.append(_Read(frame, digest, at or None, labels.one_hot))
    return read


def _repeated(frames: Sequence[Frame], digests: Sequence[str]) -> list[Problem]:
    """The same image, or the same stem, for a second time."""
    problems, images, stems = [], {}, {}
    for frame, digest in zip(frames, digests, strict=True):
        first = images.setdefault(digest, frame)
        if first is not frame:
            twice = "twice" if first.part == frame.part else "in another part"
            cure = "keep one" if first.part == frame.part else "a score on it is memory; keep one"
            problems.append(Problem(frame.name, None, first.name, f"the same image {twice}", cure))
            if first.view != frame.view or not np.array_equal(first.boxes, frame.boxes):
                what, cure = "the same image with other labels", "look which of them are right"
                problems.append(Problem(frame.name, None, first.name, what, cure))
        other = stems.setdefault(frame.image.stem, frame)
        if other.part != frame.part and other is not first:
            what, cure = "the same stem in another part", "see whether it is the same frame; rename one"
            problems.append(Problem(frame.name, None, other.name, what, cure))
    return problems


def _unused(settings: DataYaml, frames: Sequence[Frame]) -> list[Problem]:
    """Classes that no box has."""
    used = {index for frame in frames for index in frame.classes}
    what, cure = "a class that no box has", "see whether its boxes are missing, or take it from names"
    unused = [name for index, name in enumerate(settings.names) if index not in used]
    return [settings.problem("names", name, what, cure) for name in unused]
