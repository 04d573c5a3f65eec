"""The folders that a data.yaml names, and the images and label files in them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from gradlib.data.data_yaml import PARTS, DataYaml
from gradlib.data.faults import UNPRINTABLE, Fault
from gradlib.data.files import dataset_boundary, is_inside, relative

__all__ = ["SUFFIXES", "image_folders", "labelled_images"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def image_folders(settings: DataYaml, problems: list) -> Iterator[tuple[str, Path]]:
    """(part, folder of images) for every folder that data.yaml names, each folder once."""
    seen, root = set(), settings.file.parent
    for part, keys in PARTS.items():
        key = next((key for key in keys if getattr(settings, key)), keys[0])
        for entry in getattr(settings, key):
            folder = _locate(root, settings.path, entry)
            if folder is None:
                beside = (root / name / "images" for name in keys)
                folder = next((place for place in beside if place.is_dir()), None)
                if folder is None and part == "train":
                    text = "no folder; write its path relative to this file"
                    raise settings.error(key, text, FileNotFoundError)
                what = "a folder that does not exist" + (", another was read" if folder else "")
                problems.append(settings.problem(key, what, entry, other=folder and relative(folder, root)))
            if folder and not is_inside(folder, boundary := dataset_boundary(root)):
                text = f"a folder outside of the data set's place; only {boundary} is read: move it there"
                raise settings.error(key, text)
            real = folder and os.path.realpath(folder)
            if real in seen:
                problems.append(settings.problem(key, "a folder named twice", entry))
            elif folder:
                seen.add(real)
                yield part, folder


def _locate(root: Path, base: str, entry: str) -> Path | None:
    """The folder that an entry means: as written, else with leading components left out.

    Exports of labelling tools write paths relative to the folder, to its parent, or to a place on
    their own machine; beside data.yaml the tail of such a path still holds.
    """
    parts = [part for part in re.split(r"[/\\]", entry) if part not in ("", ".", "..")]
    # A bare "images" would be the same folder for every part.
    tails = [parts[i:] for i in range(len(parts)) if i == 0 or parts[i:] != ["images"]]
    places = [root / base / entry, root / entry, root.parent / entry]
    places += [root.joinpath(*tail) for tail in tails] + [Path.cwd() / entry]
    normal = (Path(os.path.abspath(place)) for place in places)
    return next((place for place in normal if os.path.isdir(place)), None)


def labelled_images(folder: Path, root: Path, problems: list) -> Iterator[tuple[Path, Path | None]]:
    """(image, its label file or None) by name, one a stem."""
    labels = _labels_beside(folder, root)
    texts = [file for file in _visible(labels, root) if file.suffix.lower() == ".txt"]
    images: dict[str, Path] = {}  # by stem
    for file in _visible(folder, root):
        name, suffix = relative(file, root), file.suffix.lower()
        if UNPRINTABLE.search(name):
            fault = Fault("a name with control characters or undecodable bytes")
        elif suffix not in SUFFIXES:
            if folder == labels or suffix == ".txt":  # it may hold anything else
                continue
            fault = Fault("neither an image nor a label file", known=" ".join(SUFFIXES))
        elif file.stem in images:
            fault = Fault("a second image of the same stem", first=images[file.stem].name)
        else:
            images[file.stem] = file
            continue
        problems.append(fault.at(name))
    exact = {file.stem: file for file in texts if file.suffix == ".txt"}
    others = [file for file in texts if file not in exact.values() or file.stem not in images]
    in_any_case = {file.stem.casefold(): file for file in others}
    for stem, image in images.items():
        expected = labels / f"{stem}.txt"
        label = exact.get(stem) or in_any_case.get(stem.casefold())
        if label is None:
            what = "an image without a label file, read as background"
            problems.append(Fault(what, file=relative(expected, root)).at(relative(image, root)))
        elif label != expected:
            others.remove(in_any_case.pop(stem.casefold()))
            fault = Fault("a label file whose name differs in case", name=expected.name)
            problems.append(fault.at(relative(label, root)))
        yield image, label
    alone = (file for file in others if file.stem != "classes")  # labelling tools write it beside the labels
    problems += [Fault("a label file without an image").at(relative(file, root)) for file in alone]


def _labels_beside(folder: Path, root: Path) -> Path:
    """The folder of the labels: `labels` beside `images`, in any case, else the folder itself."""
    if folder.name.lower() != "images":
        return folder
    beside = folder.with_name("labels")
    others = (other for other in _visible(folder.parent, root) if other.name.lower() == "labels")
    return beside if beside.is_dir() else next(others, beside)


def _visible(folder: Path, root: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.name[0] != ".") if folder.is_dir() else []
    except OSError as error:
        text = f"{root}: {relative(folder, root)!r}: a folder that cannot be listed; {error.strerror}"
        raise ValueError(f"{text}: correct its permissions") from None
