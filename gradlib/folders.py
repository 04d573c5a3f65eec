"""What a data.yaml says: names, the folders of each part, and the files in them."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from PIL import Image

from gradlib.labels import Problem

__all__ = [
    "GROUPS",
    "SUFFIXES",
    "expression_of",
    "group_of",
    "group_problems",
    "image_folders",
    "labelled_images",
    "names_of",
    "read_settings",
    "read_text",
    "relative",
]

KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}  # also folders' names
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}
GROUPS = {"patient": "^[^-]+", "video": "^.*(?=-)"}  # of a stem PATIENT-VIDEO-FRAME


def read_settings(path: Path) -> dict:
    """The keys of a data.yaml; `train` and `names` must be there (ValueError)."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a data.yaml")
    try:
        settings = yaml.safe_load(path.read_text("utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise ValueError(f"{path}{line}: not a YAML file ({reason}); mend it") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: no keys in it; it needs at least train and names")
    for key in ("train", "names"):
        if not settings.get(key):
            raise ValueError(f"{path}: the key '{key}' is missing; add it")
    return settings


def names_of(path: Path, settings: dict, key: str) -> tuple[str, ...]:
    """The names under `key`, given as a list or numbered from 0; for `names`, `nc` must agree."""
    names = settings[key]
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f"{path}: {key}: {names!r} is neither a list nor numbered from 0")
    names = tuple(map(str, names))
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: {key}: {list(names)} names one twice; give each its own name")
    if key == "names" and settings.get("nc", len(names)) != len(names):
        cure = f"but names has {len(names)}; correct nc or leave it out"
        raise ValueError(f"{path}: nc: {settings['nc']!r}, {cure}")
    return names


def expression_of(path: Path, settings: dict, key: str) -> re.Pattern:
    """The regular expression for "patient" or "video"."""
    pattern = settings.get(key) or GROUPS[key]
    try:
        return re.compile(pattern)
    except (re.error, TypeError) as error:
        reason = f"is not a regular expression ({error})"
        raise ValueError(f"{path}: {key}: {pattern!r} {reason}; correct it") from None


def group_of(expression: re.Pattern, stem: str) -> str:
    """What the expression finds in a stem: its first group, else all of it; else the stem."""
    found = expression.search(stem)
    return (found and found.group(1 if expression.groups else 0)) or stem


def group_problems(path: Path, expressions: dict[str, re.Pattern], stems: list[str]) -> list[Problem]:
    """Expressions that do not group: folds and leakage would silently mean nothing."""
    problems = []
    for key, expression in expressions.items():
        unmatched = [stem for stem in stems if not expression.search(stem)]
        if unmatched:
            what = f"the expression for {key} does not match every file's stem"
            cure = f"correct it: {len(unmatched)} of {len(stems)} differ, as {unmatched[0]!r}"
        elif key == "patient" and 1 < len(stems) == len({group_of(expression, s) for s in stems}):
            what = "the expression for patient finds another patient in every frame"
            cure = "write one that a patient's frames have in common, or the folds leak"
        else:
            continue
        problems.append(Problem(path.name, None, expression.pattern, what, cure))
    return problems


def image_folders(path: Path, settings: dict, problems: list) -> Iterator[tuple[str, Path]]:
    """(part, folder of images) for every folder that data.yaml names, each folder once."""
    seen = set()
    for part, keys in KEYS.items():
        key = next((key for key in keys if settings.get(key)), None)
        entries = settings[key] if key else []
        for entry in [entries] if isinstance(entries, str) else entries:
            folder = _locate(path.parent, str(settings.get("path") or ""), str(entry))
            if folder is None:
                beside = (path.parent / name / "images" for name in keys)
                folder = next((place for place in beside if place.is_dir()), None)
                if folder is None and part == "train":
                    cure = "write the folder's path relative to this file"
                    raise FileNotFoundError(f"{path}: {key}: {entry!r} is no folder; {cure}")
                instead = relative(folder, path.parent) if folder else "nothing"
                what, cure = f"the {part} folder does not exist", f"correct it; {instead} was read"
                problems.append(Problem(path.name, None, str(entry), what, cure))
            elif folder in seen:
                what, cure = "a folder named twice", "give each part its own; it was read once"
                problems.append(Problem(path.name, None, str(entry), what, cure))
            if folder and folder not in seen:
                seen.add(folder)
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
    return next((place for place in normal if place.is_dir()), None)


def labelled_images(folder: Path, root: Path, problems: list) -> Iterator[tuple[Path, Path]]:
    """(image, its label file) by name; images that cannot be opened are left out."""
    labels = folder.with_name("labels") if folder.name == "images" else folder
    images = [file for file in _visible(folder) if file.suffix.lower() in SUFFIXES]
    texts = {file.stem for file in _visible(labels) if file.suffix == ".txt"}
    for stem in sorted(texts - {image.stem for image in images} - {"classes"}):
        file = relative(labels / f"{stem}.txt", root)
        what = "a label file without an image"
        problems.append(Problem(file, None, "", what, "add the image or remove the file"))
    for image in images:
        try:
            Image.open(image).close()  # the header only; pixels are read when needed
        except (OSError, ValueError, SyntaxError) as error:
            what, cure = "not a readable image, left out", "replace or remove the file"
            problems.append(Problem(relative(image, root), None, str(error)[:80], what, cure))
            continue
        if image.stem not in texts:
            file, what = relative(image, root), "an image without a label file, read as background"
            cure = f"add {relative(labels / f'{image.stem}.txt', root)}"
            problems.append(Problem(file, None, "", what, cure))
        yield image, labels / f"{image.stem}.txt"


def _visible(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(file for file in files if not file.name.startswith("."))


def read_text(raw: bytes, file: str, problems: list) -> str:
    """The text of a label file; a byte order mark is dropped."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what, cure = "not a UTF-8 text, its labels are left out", "save the file as UTF-8"
        problems.append(Problem(file, None, error.reason, what, cure))
        return ""


def relative(file: Path, root: Path) -> str:
    """`file` as seen from `root`, with forward slashes."""
    return Path(os.path.relpath(file, root)).as_posix()
