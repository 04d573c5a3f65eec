"""The folders that a data.yaml names, and the images and label files in them."""

import os
from collections.abc import Iterator
from pathlib import Path

from gradlib.data.data_yaml import PARTS, DataYaml
from gradlib.data.faults import UNPRINTABLE, Fault
from gradlib.data.files import is_inside, relative

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def find_images(settings: DataYaml, problems: list) -> list[tuple[str, Path, Path | None]]:
    """(part, image, its label file or None) in every folder that data.yaml names, each folder once."""
    found = []
    for part, folder in image_folders(settings, problems):
        images = list(_labelled_images(folder, settings.root, problems))
        found += [(part, *both) for both in images]
        if not images:
            problems.append(Fault("a folder without images").at(relative(folder, settings.root)))
    return found


def image_folders(settings: DataYaml, problems: list) -> Iterator[tuple[str, Path]]:
    """(part, folder of images) for every folder that data.yaml names, each folder once.

    An entry is relative to `path` or data.yaml, to the folder above, or its last two parts are: Roboflow
    exports write `../train/images` for the `train/images` beside data.yaml. Nothing above that is read,
    whatever data.yaml or a link says.
    """
    root, seen = settings.root, set()
    for part, keys in PARTS.items():
        key = next((key for key in keys if getattr(settings, key)), keys[0])
        for entry in getattr(settings, key):
            places = root / settings.path / entry, root / entry, root.parent / entry
            places = (*places, root.joinpath(*Path(entry).parts[-2:]))
            folder = next((Path(os.path.abspath(place)) for place in places if os.path.isdir(place)), None)
            if folder is None and part == "train":
                text = "no folder; write its path relative to this file"
                raise settings.error(key, text, FileNotFoundError)
            if folder and not is_inside(folder, root.parent):
                text = f"a folder outside of the data set's place; only {root.parent} is read: move it there"
                raise settings.error(key, text)
            real = folder and os.path.realpath(folder)
            if folder is None or real in seen:
                what = "a folder named twice" if folder else "a folder that does not exist"
                problems.append(settings.problem(key, what, entry))
            else:
                seen.add(real)
                yield part, folder


def _labelled_images(folder: Path, root: Path, problems: list) -> Iterator[tuple[Path, Path | None]]:
    """(image, its label file or None) by name, one a stem; labels lie in `labels` beside `images`."""
    labels = folder.with_name("labels") if folder.name == "images" else folder
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
    texts = {file.name: file for file in _visible(labels, root) if file.suffix.lower() == ".txt"}
    for stem, image in images.items():
        label = texts.pop(f"{stem}.txt", None)
        if label is None:
            missing = relative(labels / f"{stem}.txt", root)
            fault = Fault("an image without a label file, read as background", file=missing)
            problems.append(fault.at(relative(image, root)))
        yield image, label
    alone = (file for file in texts.values() if file.stem != "classes")  # labelling tools write it
    problems += [Fault("a label file without an image").at(relative(file, root)) for file in alone]


def _visible(folder: Path, root: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.name[0] != ".") if folder.is_dir() else []
    except OSError as error:
        text = f"{root}: {relative(folder, root)!r}: a folder that cannot be listed; {error.strerror}"
        raise ValueError(f"{text}: correct its permissions") from None
