"""The class (the view) of each whole image where label files do not say it: from names, or from a table.

image_class: "images/([A-Z0-9]+)/"   # an expression: its first group in the path from data.yaml
image_class: views.csv               # a table: columns file (path, name or stem) and class
image_classes: [A4C, PSAX, PLAX]     # their order; by default that of the alphabet
"""

import csv
import io
import posixpath
from collections.abc import Sequence

from gradlib.data.data_yaml import DataYaml, search
from gradlib.data.faults import Fault
from gradlib.data.files import MAX_TABLE_BYTES, read_text, relative


def find_image_classes(settings: DataYaml, files: Sequence[str], problems: list) -> tuple[tuple, list[int]]:
    """The names of the image classes, and the index of each file's (-1 = has none).

    files: paths of images from the folder of data.yaml. Raises ValueError where no file has a class.
    """
    if isinstance(settings.image_class, str):
        table = _read_table(settings)
        root = settings.root
        places = (root, root / settings.path, root.parent / settings.path)
        keys = [[*(relative(f, p) for p in places), f.name, f.stem] for f in (root / file for file in files)]
        found = [next((table[key][0] for key in own if key in table), None) for own in keys]
        known = {key for own in keys for key in own}
        if lost := [file for file in table if file not in known]:
            what, line = "rows of images that are not there", table[lost[0]][1]
            value = f"{len(lost)} of {len(table)}: {', '.join(lost)}"
            problems.append(Fault(what, value).at(settings.image_class, line))
    else:
        found = search(settings, "image_class", files)
    names = settings.image_classes or sorted({name for name in found if name})
    if not any(name in names for name in found):
        raise settings.error("image_class", f"gives no image a class, as for {files[0]!r}; correct it")
    if len(files) > 1 and len(set(found)) == 1:
        problems.append(settings.problem("image_class", "one view for every image", found[0]))
    for file, name in zip(files, found, strict=True):
        if name not in names:
            problems.append(Fault("no image class", name or "", names=", ".join(names)).at(file))
    return tuple(names), [names.index(name) if name in names else -1 for name in found]


def _read_table(settings: DataYaml) -> dict[str, tuple[str, int]]:
    """The class and the line of each file of a table."""
    path, table = settings.root / settings.image_class, {}
    try:
        text = read_text(path, MAX_TABLE_BYTES, settings.boundary)
        reader = csv.DictReader(io.StringIO(text), strict=True)
        header, rows = reader.fieldnames, [*reader]
    except (csv.Error, ValueError) as error:
        raise settings.error("image_class", f"cannot be read: {error}") from None
    if not {"file", "class"} <= {*(header or ())}:
        raise settings.error("image_class", f"line 1: expected the columns file and class, got {header}")
    for line, row in enumerate(rows, 2):
        file, name = (str(row[column] or "").strip() for column in ("file", "class"))
        file = file and posixpath.normpath(file)
        if not file or None in row or table.get(file, (name,))[0] != name:
            text = f"line {line}: expected a file and its class, and each file once, got {row}"
            raise settings.error("image_class", text)
        if name:
            table[file] = name, line
    return table
