"""Reading files as untrusted input: regular files of a bounded size, UTF-8, JSON with finite numbers.

Nothing waits for a pipe, no code of a file runs, and every error is one line that begins with the path.
"""

import json
import math
import os
import stat
from pathlib import Path

MAX_BYTES = 4 * 2**20  # of settings
MAX_TABLE_BYTES = 128 * 2**20  # of tables, predictions and notebooks


class UnreadableFile(ValueError):
    """A file that is not read: "path, line 3: what (value); cure"."""

    def __init__(self, path: Path, what: str, cure: str, value: str = "", line: int | None = None):
        place = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{place}: {what}{f' ({value})' if value else ''}; {cure}")
        self.what, self.cure, self.value = what, cure, value


def read_bytes(path: Path, max_bytes: int = MAX_BYTES, within: Path | None = None) -> bytes:
    """The bytes of a regular file of at most `max_bytes` bytes; never of a pipe or device, which may not end.

    within: the folder that the file must lie in, links resolved. Raises FileNotFoundError or UnreadableFile.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = stat.filemode(status.st_mode)
            raise UnreadableFile(path, "is not a regular file", "replace it by a file", kind)
        if within is not None and not is_inside(path, within):
            target = os.path.relpath(os.path.realpath(path), path.parent)
            cure = f"copy it into {within.name or within}"
            raise UnreadableFile(path, "is outside the folder it belongs to", cure, target)
        if status.st_size > max_bytes:
            cure, size = f"at most {max_bytes:,} bytes are read", f"{status.st_size:,} bytes"
            raise UnreadableFile(path, "is too large", cure, size)
        with path.open("rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found") from None
    except OSError as error:
        cure = "correct the link or the permissions"
        raise UnreadableFile(path, "cannot be read", cure, error.strerror or str(error)) from None


def read_text(path: Path, max_bytes: int = MAX_BYTES, within: Path | None = None) -> str:
    """The text of a UTF-8 file, without a byte order mark, as `read_bytes` reads it."""
    raw = read_bytes(path, max_bytes, within)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UnreadableFile(path, "is not UTF-8 text", "save it as UTF-8", error.reason, line) from None


def read_json(path: Path, max_bytes: int = MAX_BYTES, within: Path | None = None) -> object:
    """The value in a JSON file, as `read_bytes` reads it. NaN and Infinity, which JSON lacks, are refused."""
    text = read_text(path, max_bytes, within)
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not valid JSON ({error})") from None


def _finite(written: str) -> float:
    if not math.isfinite(value := float(written)):
        raise ValueError(f"{written} is not a finite number")
    return value


def one_line(text: object) -> str:
    """`text` in one line of printable characters, with single spaces."""
    return printable(" ".join(str(text).split()))


def printable(text: str) -> str:
    """`text` without what controls a terminal, ends a line or changes the direction of writing."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def project_folder() -> Path:
    """The nearest folder, from the working folder upwards, that holds the notebooks; else the working
    folder. Relative paths in a notebook's parameters start here, wherever its kernel runs."""
    here = Path.cwd()
    folders = (here, *here.parents)
    return next((f for f in folders if (f / "notebooks/01_solution.ipynb").is_file()), here)


def dataset_boundary(root: Path) -> Path:
    """The folder that files of a data set must lie in: the one that holds `root`, where data.yaml is.

    Exports name `../train/images`. Nothing beyond is read, whatever data.yaml or a link says.
    """
    return Path(os.path.realpath(root.parent))


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder`, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def relative(file: Path, root: Path) -> str:
    """`file` as seen from `root`, with forward slashes."""
    return Path(os.path.relpath(file, root)).as_posix()
