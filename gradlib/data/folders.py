"""The images that a data.yaml names, in folders or in lists, and where each one's label file lies."""

import os
from collections.abc import Iterator
from pathlib import Path

from gradlib.data.data_yaml import PARTS, DataYaml
from gradlib.data.faults import UNPRINTABLE, Fault
from gradlib.data.files import is_inside, read_text, relative

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_LIST_BYTES = 2**26


def find_images(settings: DataYaml, problems: list) -> list[tuple[str, Path, Path | None]]:
    """(part, image, its label file or None) for every image that data.yaml names, each once.

    Raises ValueError where a part has images and no label file at all.
    """
    root, found, claimed = settings.root, [], {}  # claimed: label files, in order
    for part, key, source in sources(settings, problems):
        images = [*(_listed if source.is_file() else _below)(settings, source, problems)]
        if not images:
            problems.append(Fault("a folder without images").at(relative(source, root)))
            continue
        places = (_in_labels, _beside, _in_sibling)
        every = ([place(image, source) for image in images] for place in places)
        labels = next((some for some in every if any(map(os.path.lexists, some))), None)
        if labels is None:
            looked = [relative(place(images[0], source).parent, root) for place in places]
            looked = " nor in ".join(dict.fromkeys(looked))
            text = f"{len(images)} images and no label file, neither in {looked}"
            raise settings.error(key, f"{text}; add them")
        for image, label in zip(images, labels, strict=True):
            claimed[label] = None
            there = os.path.lexists(label)
            if not there:
                fault = Fault("an image without a label file, read as background", file=relative(label, root))
                problems.append(fault.at(relative(image, root)))
            found.append((part, image, label if there else None))
    for folder in dict.fromkeys(label.parent for label in claimed):
        for file in _files(folder, root):
            if file.suffix.lower() == ".txt" and file not in claimed and not _is_other(file, settings):
                problems.append(Fault("a label file without an image").at(relative(file, root)))
    return found


def sources(settings: DataYaml, problems: list) -> Iterator[tuple[str, str, Path]]:
    """(part, its key, folder or list of images) for every entry of data.yaml, each place once.

    An entry is relative to `path`, to data.yaml or to the folder above; `../train/images` may also mean the
    `train/images` beside data.yaml, as in exports of Roboflow. Where none of them is there, its last two
    parts are tried, and noted. Nothing outside the folder above is read unless `allow_outside` is true.
    """
    root, seen = settings.root, set()
    for part, keys in PARTS.items():
        key = next((key for key in keys if getattr(settings, key)), keys[0])
        for entry in getattr(settings, key):
            places = [root / settings.path / entry, root / entry, root.parent / settings.path / entry]
            places += [root.parent / entry, root / entry.removeprefix("../")]
            last = root.joinpath(*Path(entry).parts[-2:])
            there = next((place for place in (*places, last) if os.path.exists(place)), None)
            source = there and Path(os.path.abspath(there))
            if source is None and part == "train":
                text = "no folder and no list of images; write its path relative to this file"
                raise settings.error(key, text, FileNotFoundError)
            if source and not is_inside(source, settings.boundary):
                text = f"a folder outside of the data set's place; only {settings.boundary} is read: move it"
                raise settings.error(key, f"{text} there, or write `allow_outside: true`")
            real = source and os.path.realpath(source)
            if source is None or real in seen:
                what = "a folder named twice" if source else "a folder that does not exist"
                problems.append(settings.problem(key, what, f"{key}: {entry}"))
                continue
            if there is last:
                what = "a folder that is not there, one of that name was read"
                problems.append(settings.problem(key, what, entry, folder=relative(source, root)))
            seen.add(real)
            yield part, key, source


def _listed(settings: DataYaml, file: Path, problems: list) -> Iterator[Path]:
    """The images in a list, one a line: from the list's folder, from `path`, or from data.yaml."""
    root = settings.root
    starts = (file.parent, root / settings.path, root, root.parent / settings.path)
    for line, entry in enumerate(read_text(file, MAX_LIST_BYTES, settings.boundary).splitlines(), 1):
        if entry.strip():
            places = (Path(os.path.abspath(start / entry.strip())) for start in starts)
            image = next((place for place in places if place.is_file()), None)
            if image:
                yield image
            else:
                problems.append(Fault("an image that is not there").at(relative(file, root), line, entry))


def _below(settings: DataYaml, folder: Path, problems: list) -> Iterator[Path]:
    """The images in a folder and the folders in it, one a stem, by name."""
    stems: dict[str, Path] = {}
    for file in _files(folder, settings.root):
        name, suffix = relative(file, settings.root), file.suffix.lower()
        if file.is_dir() and suffix not in SUFFIXES:
            if file.name != "labels" and is_inside(file, settings.boundary) and not file.is_symlink():
                yield from _below(settings, file, problems)
            continue
        if UNPRINTABLE.search(name):
            fault = Fault("a name with control characters or undecodable bytes")
        elif suffix not in SUFFIXES:
            if suffix in (".txt", ".cache") or "images" not in folder.parts:  # it may hold anything else
                continue
            fault = Fault("neither an image nor a label file", known=" ".join(SUFFIXES))
        elif file.stem in stems:
            fault = Fault("a second image of the same stem", first=stems[file.stem].name)
        else:
            stems[file.stem] = file
            yield file
            continue
        problems.append(fault.at(name))


def _in_labels(image: Path, source: Path) -> Path:
    """In `labels` instead of the last `images` of its path, as YOLOv5 has it."""
    head, images, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if images else image).with_suffix(".txt")


def _beside(image: Path, source: Path) -> Path:
    return image.with_suffix(".txt")


def _in_sibling(image: Path, source: Path) -> Path:
    """In the `labels` beside the folder that data.yaml names."""
    place = source.parent / "labels" / os.path.relpath(image, source if source.is_dir() else image.parent)
    return place.with_suffix(".txt")


def _is_other(file: Path, settings: DataYaml) -> bool:
    """Whether a text is no label file: the list of classes that labelling tools write, a list of images."""
    entries = [Path(e).name for keys in PARTS.values() for key in keys for e in getattr(settings, key)]
    return file.stem == "classes" or file.name in entries


def _files(folder: Path, root: Path) -> list[Path]:
    try:
        return sorted(f for f in folder.iterdir() if f.name[0] != ".") if folder.is_dir() else []
    except OSError as error:
        text = f"{root}: {relative(folder, root)!r}: a folder that cannot be listed; {error.strerror}"
        raise ValueError(f"{text}: correct its permissions") from None
