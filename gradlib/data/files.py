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
    """A file that is not read: "path, line 3: reason; cure"."""

    def __init__(self, path: Path, reason: str, cure: str, line: int | None = None):
        super().__init__(f"{path}{f', line {line}' if line else ''}: {reason}; {cure}")
        self.reason, self.cure = reason, cure


class MissingFile(UnreadableFile, FileNotFoundError):
    """A file that is not there."""


def read_bytes(path: Path, max_bytes: int = MAX_BYTES, within: Path | None = None) -> bytes:
    """The bytes of a regular file of at most `max_bytes` bytes; never of a pipe or device, which may not end.

    within: the folder that the file must lie in, links resolved. Raises UnreadableFile.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            reason = f"is not a regular file ({stat.filemode(status.st_mode)})"
            raise UnreadableFile(path, reason, "replace it by a file")
        if within is not None:
            check_inside(path, within)
        if status.st_size > max_bytes:
            reason = f"is too large ({status.st_size:,} bytes)"
            raise UnreadableFile(path, reason, f"at most {max_bytes:,} bytes are read")
        with path.open("rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        raise MissingFile(path, "not found", "put it there, or correct the link") from None
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise UnreadableFile(path, reason, "correct the link or the permissions") from None


def read_text(path: Path, max_bytes: int = MAX_BYTES, within: Path | None = None) -> str:
    """The text of a UTF-8 file, without a byte order mark, as `read_bytes` reads it."""
    raw = read_bytes(path, max_bytes, within)
    try:
        text = raw.decode("utf-8-sig")
        wrong, at = "NUL bytes", raw.find(b"\0")  # UTF-16 without a byte order mark, or no text at all
    except UnicodeDecodeError as error:
        wrong, at = error.reason, error.start
    if at < 0:
        return text
    line = raw.count(b"\n", 0, at) + 1
    raise UnreadableFile(path, f"is not UTF-8 text ({wrong})", "save it as UTF-8", line)


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
    """`text` with what controls a terminal, ends a line or changes the direction of writing as its code."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def project_folder() -> Path:
    """The nearest folder, from the working folder upwards, that holds the notebooks; else the working
    folder. Relative paths in a notebook's parameters start here, wherever its kernel runs."""
    here = Path.cwd()
    folders = (here, *here.parents)
    return next((f for f in folders if (f / "notebooks/01_solution.ipynb").is_file()), here)


def check_inside(path: Path, folder: Path) -> None:
    """Raise UnreadableFile where links lead `path` out of `folder`."""
    if not is_inside(path, folder):
        target = os.path.relpath(os.path.realpath(path), path.parent)
        reason = f"is outside the folder it belongs to ({target})"
        raise UnreadableFile(path, reason, f"copy it into {folder.name or folder}")


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is in `folder`, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def relative(file: Path, root: Path) -> str:
    """`file` as seen from `root`, with forward slashes."""
    return Path(os.path.relpath(file, root)).as_posix()
