"""Reading a data set: every file behind a data.yaml, within bounds, and all that is wrong with it."""

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from gradlib.data.data_yaml import GROUPS, Settings, group_problems, groups_of, read_settings
from gradlib.data.faults import Fault, Problem, Refused, read_or_fault, skipped
from gradlib.data.files import dataset_boundary, relative
from gradlib.data.folders import SUFFIXES, image_folders, labelled_images
from gradlib.data.images import to_rgb
from gradlib.data.labels import Labels, parse, text_of, views_of

__all__ = ["PARTS", "Dataset", "Frame", "read", "resolve"]

PARTS = ("train", "valid", "test")
IMAGE_BYTES, LABEL_BYTES = 2**28, 2**20  # the largest files that are read


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
        return skipped(self.problems)


@dataclass(frozen=True)
class _Files:
    """A frame's files, read; `digest` is of the image's bytes, `labels_file` None where there is none."""

    part: str
    image: Path
    name: str
    digest: str
    labels_file: str | None
    labels: Labels


def resolve(data: str, root: Path) -> Path:
    """The data.yaml that a notebook's `data` means: "phantom", or a path taken from `root`."""
    if data == "phantom":
        from gradlib.data import phantom

        return phantom.ensure(Path(root) / "data")
    return Path(root) / Path(data).expanduser()


def read(path: str | Path, strict: bool = False) -> Dataset:
    """Read a data.yaml, and every image and label file behind it in full.

    Keys: `train`, `val` (or `valid`), `test` (folders), `names`, and optionally `path`, `nc`,
    `image_classes` (the views in one-hot order), `patient` and `video` (regular expressions over
    a file's stem: their first group, else the whole match). Raises one line naming file, key and
    value where nothing sensible can be read. Every lesser fault is in `Dataset.problems`, dealt with by
    the rule for its kind (`problems`); with `strict`, what would be skipped or guessed raises, too.
    """
    path = Path(os.path.abspath(path))
    settings = read_settings(path)
    classes = settings.names("names")
    views = settings.names("image_classes") if settings.values.get("image_classes") else None
    problems = settings.unknown_keys() + settings.marked_up()
    for key in GROUPS:
        settings.expression(key)  # what is wrong there is said before all files are read
    files = _read_files(settings, len(classes), views and len(views), problems)
    if not files:
        cure = f"known are {' '.join(sorted(SUFFIXES))}"
        first = f"; the first of {len(problems)} faults: {problems[0]}" if problems else ""
        raise Refused(Problem(str(path), None, "", "no readable image", cure + first), problems)
    views, indices, faults = views_of([(one.labels_file, one.labels.one_hot) for one in files], views)
    stems = [one.image.stem for one in files]
    groups = {key: groups_of(settings, key, stems) for key in GROUPS}
    problems += faults + group_problems(settings, stems, groups)
    frames, digest = [], hashlib.sha256(repr((classes, views)).encode())
    for i, one in enumerate(files):
        own = {key: found[i] or stems[i] for key, found in groups.items()}
        frame = Frame(one.image, one.labels.boxes, indices[i], **own, part=one.part, name=one.name)
        frames.append(frame)
        place = (one.part, one.name, sorted(own.items()), one.digest, frame.view)
        digest.update(repr(place).encode() + frame.boxes.tobytes())
    problems += _repeated(frames, [one.digest for one in files])
    problems += _unused(settings, classes, frames)
    against = [problem for problem in problems if problem.rule in ("skipped", "guessed")]
    if strict and against:
        cure = f"the first of {len(against)} is {against[0]}; `python -m gradlib check {path.name}` lists all"
        raise Refused(Problem(str(path), None, "", "faults that strict refuses", cure), problems)
    return Dataset(path.parent, classes, views, tuple(frames), tuple(problems), digest.hexdigest())


def _read_files(settings: Settings, classes: int, views: int | None, problems: list) -> list[_Files]:
    """The files of every frame that can be read."""
    root, named = settings.path.parent, []
    for part, folder in image_folders(settings, problems):
        images = list(labelled_images(folder, root, problems))
        named += [(part, image, labels) for image, labels in images]
        if not images:
            what, cure = "a folder without images", f"add images of {part}, or do not name it"
            problems.append(Problem(relative(folder, root), None, "", what, cure))
    boundary, files = dataset_boundary(root), []
    for part, image, labels in tqdm(named, "reading the data", delay=2):
        at = name = relative(image, root)
        try:
            raw = read_or_fault("an image", image, IMAGE_BYTES, boundary)
            notes = [note.at(name) for note in to_rgb(io.BytesIO(raw))[1]]
            # Without its boxes a frame would pass for background: it is left out with its labels.
            at = relative(labels, root) if labels else ""
            text = text_of(read_or_fault("a label file", labels, LABEL_BYTES, boundary)) if labels else ""
        except Fault as fault:
            problems.append(fault.at(at))
            continue
        read = parse(text, at, classes, views)
        problems += [*notes, *read.problems]
        files.append(_Files(part, image, name, hashlib.sha256(raw).hexdigest(), at or None, read))
    return files


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


def _unused(settings: Settings, classes: Sequence[str], frames: Sequence[Frame]) -> list[Problem]:
    """Classes that no box has."""
    used = set(np.concatenate([frame.boxes[:, 0] for frame in frames]).astype(int).tolist())
    what, cure = "a class that no box has", "see whether its boxes are missing, or take it from names"
    unused = [name for index, name in enumerate(classes) if index not in used]
    return [settings.problem("names", name, what, cure) for name in unused]
