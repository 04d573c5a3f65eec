"""The class (the view) of each whole image where label files do not say it: from names, or from a table.

image_class: "images/([A-Z0-9]+)/"   # an expression: its first group in the path from data.yaml
image_class: views.csv               # a table with the columns file and class
image_classes: [A4C, PSAX, PLAX]     # their order; by default that of the alphabet
"""

import csv
import io
from collections.abc import Sequence
from pathlib import PurePosixPath

from gradlib.data.data_yaml import DataYaml, search
from gradlib.data.faults import Fault
from gradlib.data.files import MAX_TABLE_BYTES, read_text


def find_image_classes(settings: DataYaml, files: Sequence[str], problems: list) -> tuple[tuple, list[int]]:
    """The names of the image classes, and the index of each file's (-1 = has none).

    files: paths of images from the folder of data.yaml. Raises ValueError where no file has a class.
    """
    if isinstance(settings.image_class, str):
        table = _read_table(settings)
        keys = [(file, PurePosixPath(file).name, PurePosixPath(file).stem) for file in files]
        found = [next((table[key] for key in own if key in table), None) for own in keys]
    else:
        found = search(settings, "image_class", files)
    names = settings.image_classes or sorted({name for name in found if name})
    if not any(name in names for name in found):
        raise settings.error("image_class", f"gives no image a class, as for {files[0]!r}; correct it")
    for file, name in zip(files, found, strict=True):
        if name not in names:
            problems.append(Fault("no image class", name or "", names=", ".join(names)).at(file))
    return tuple(names), [names.index(name) if name in names else -1 for name in found]


def _read_table(settings: DataYaml) -> dict[str, str]:
    path = settings.root / settings.image_class
    try:
        rows = [
            *csv.DictReader(io.StringIO(read_text(path, MAX_TABLE_BYTES, settings.boundary)), strict=True)
        ]
    except (csv.Error, ValueError) as error:
        raise settings.error("image_class", f"cannot be read: {error}") from None
    table: dict[str, str] = {}
    for line, row in enumerate(rows, 2):
        file, name = (str(row.get(column) or "").strip() for column in ("file", "class"))
        if not file or None in row or table.get(file, name) != name:
            text = f"line {line}: expected the columns file and class, and each file once, got {row}"
            raise settings.error("image_class", text)
        if name:
            table[file] = name
    return table
