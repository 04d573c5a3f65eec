"""Reading a data set: every file behind a data.yaml, within bounds, and all that is wrong with it."""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from gradlib.config import PHANTOMS
from gradlib.data.data_yaml import DataYaml, find_groups, read_data_yaml
from gradlib.data.faults import Fault, Problem, Refused, count_skipped
from gradlib.data.files import UnreadableFile, project_folder, read_text, relative
from gradlib.data.folders import SUFFIXES, find_images
from gradlib.data.image_classes import find_image_classes
from gradlib.data.images import CACHE_BYTES, FrameSet, letterbox, read_rgb
from gradlib.data.labels import Labels, find_views, parse

MAX_LABEL_BYTES = 2**20


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
    digest: str = ""  # SHA-256 of the image file
    size: tuple[int, int] | None = None  # width, height in pixels; None: not known
    square: torch.Tensor | None = field(default=None, repr=False)  # letterboxed uint8 [3, S, S], where kept

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

    def split(
        self, how: str = "patients", fold: int = 0, folds: int = 5, max_frames_per_patient: int = 0
    ) -> dict[str, list[Frame]]:
        """Frames by part, see `splits.split`. With `max_frames_per_patient` the training part has at most so
        many of a patient, evenly spaced: one with many does not decide what is learnt."""
        from gradlib.data.splits import capped, split  # it brings scikit-learn

        parts = split(self, how, fold, folds)
        return parts | {"train": capped(parts["train"], max_frames_per_patient)}

    def frame_set(self, frames: Sequence[Frame], size: int) -> FrameSet:
        """Some of its frames, letterboxed to size x size pixels, for training and evaluation."""
        return FrameSet(frames, size)

    def image(self, name: str) -> np.ndarray:
        """The frame `name` as it is on disk: uint8 [H, W, 3]."""
        return np.asarray(read_rgb(self.root / name)[0])


def find_data_yaml(data: str | Path) -> Path:
    """The data.yaml that `data` means: a phantom by name, or a file or folder, from the project folder on."""
    if data in PHANTOMS:
        from gradlib.data import phantom

        return phantom.ensure(project_folder() / "data", marked=data == "phantom-marked")
    path = Path(os.path.abspath(project_folder() / Path(data).expanduser()))
    if get_close_matches(str(data), PHANTOMS) and not path.exists():
        raise FileNotFoundError(f"data: {data!r} is not there; did you mean 'phantom'?")
    return path / "data.yaml" if path.is_dir() else path


def read_dataset(data: str | Path, strict: bool = False, image_size: int | None = None) -> Dataset:
    """Read the data set `data` (see `find_data_yaml`): every image and label file in full.

    Keys of a data.yaml: `train`, `val` (or `valid`), `test` (folders or lists of images), `names`, and
    optionally `path`, `nc`, `kpt_shape`, `image_classes` (the views in one-hot order), `image_class` (see
    `image_classes`), `patient` and `video` (regular expressions over a file's stem: their first group,
    else the whole match), `allow_outside` (read what links and paths lead to anywhere). Raises one line
    naming file, key and value where nothing sensible can be read. Every lesser fault is in
    `Dataset.problems`, dealt with by the rule for its kind (`faults`); with `strict`, what would be
    skipped or guessed raises, too. With `image_size`, frames keep their decoded images for a `FrameSet`
    of that size, where all of them fit in memory.
    """
    path = find_data_yaml(data)
    settings = read_data_yaml(path)
    problems = settings.problems()
    files = _read_files(settings, image_size, problems)
    if not files:
        first = f"; the first of {len(problems)} faults: {problems[0]}" if problems else ""
        raise Refused(f"{path}: no readable image; known are {' '.join(SUFFIXES)}{first}", problems)
    classes = tuple(settings.names)
    if settings.image_class:
        views, indices = find_image_classes(settings, [own["name"] for own, _ in files], problems)
    else:
        views, indices = find_views([labels for _, labels in files], settings.image_classes, problems)
    groups = find_groups(settings, [own["image"].stem for own, _ in files], problems)
    digest, frames = hashlib.sha256(repr((classes, views)).encode()), []
    for (own, labels), view, patient, video in zip(files, indices, *groups, strict=True):
        frame = Frame(boxes=labels.boxes, view=view, patient=patient, video=video, **own)
        place = frame.part, frame.name, [("patient", patient), ("video", video)], frame.digest, view
        digest.update(repr(place).encode() + frame.boxes.tobytes())
        frames.append(frame)
    problems += _repeated(frames)
    used = {"names": {index for frame in frames for index in frame.classes}, "image_classes": {*indices}}
    for key, found in used.items():
        names = getattr(settings, key) or ()
        if unused := [name for index, name in enumerate(names) if index not in found]:
            value = f"{len(unused)} of {len(names)}: {', '.join(unused)}"
            problems.append(settings.problem(key, f"{key} that no image has", value))
    against = [problem for problem in problems if problem.rule in ("skipped", "guessed")]
    if strict and against:
        first = f"the first of {len(against)} is {against[0]}"
        cure = f"`python -m gradlib check {data}` lists all"
        raise Refused(f"{path}: faults that strict refuses; {first}; {cure}", problems)
    return Dataset(path.parent, classes, views, tuple(frames), tuple(problems), digest.hexdigest())


def _read_files(settings: DataYaml, image_size: int | None, problems: list) -> list[tuple[dict, Labels]]:
    """The values of a `Frame` that its image file gives, and its labels, for each that can be read."""
    root, files, found = settings.root, [], find_images(settings, problems)
    kept = image_size is not None and len(found) * 3 * image_size**2 <= CACHE_BYTES
    classes, views = len(settings.names), settings.image_classes and len(settings.image_classes)
    keypoints = math.prod(settings.kpt_shape or [0])
    for part, image_file, labels_file in tqdm(found, "reading the data", delay=2):
        at = name = relative(image_file, root)
        try:
            image, notes, digest = read_rgb(image_file, settings.boundary)
            # Without its boxes a frame would pass for background: it is left out with its labels.
            at = relative(labels_file, root) if labels_file else ""
            text = read_text(labels_file, MAX_LABEL_BYTES, settings.boundary) if labels_file else ""
        except UnreadableFile as error:
            what = "an image or label file that cannot be read"
            problems.append(Fault(what, error.reason, cure=error.cure).at(at))
            continue
        labels = parse(text, at, classes, views, keypoints)
        problems += [*(note.at(name) for note in notes), *labels.problems]
        own = {"image": image_file, "part": part, "name": name, "digest": digest, "size": image.size}
        files.append((own | {"square": letterbox(image, image_size) if kept else None}, labels))
    return files


def _repeated(frames: Sequence[Frame]) -> Iterator[Problem]:
    """The same image, or the same stem, for a second time."""
    images, stems = {}, {}
    for frame in frames:
        first, other = images.setdefault(frame.digest, frame), stems.setdefault(frame.image.stem, frame)
        if first is not frame:
            where = "twice" if first.part == frame.part else "in another part"
            yield Fault(f"the same image {where}", first.name).at(frame.name)
            if first.view != frame.view or not np.array_equal(first.boxes, frame.boxes):
                yield Fault("the same image with other labels", first.name).at(frame.name)
        if other.part != frame.part and other is not first:
            yield Fault("the same stem in another part", other.name).at(frame.name)
