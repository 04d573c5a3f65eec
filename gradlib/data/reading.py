"""Files that a stranger may have written: ordinary files of a bounded size, in UTF-8, with finite numbers.

No code of theirs runs: YAML and JSON are read as plain values. Every error is one line that begins with the
path.
"""

import json as standard
import math
import stat
from pathlib import Path

__all__ = ["LARGE", "SMALL", "content", "json", "text"]

MIB = 2**20
SMALL, LARGE = 4 * MIB, 128 * MIB  # what is read at most: of settings, of tables and predictions


def content(path: Path, most: int = SMALL, within: Path | None = None) -> bytes:
    """The bytes of an ordinary file of at most `most` bytes; no pipe or device, which might never end.

    within: the folder that the file must lie in, links resolved. Raises FileNotFoundError or ValueError.
    """
    try:
        if within is not None and not path.resolve().is_relative_to(within.resolve()):
            raise ValueError(f"{path}: is a link that leaves {within.name}; put the file itself there")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{path}: is no ordinary file")
        if found.st_size > most:
            held = f"{found.st_size / MIB:,.0f} MiB"
            raise ValueError(f"{path}: has {held}; at most {most / MIB:,.0f} MiB of such a file are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: not found") from None
    except (OSError, RuntimeError) as error:  # a ring of links is a RuntimeError before Python 3.13
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: cannot be read ({reason})") from None


def text(path: Path, most: int = SMALL, within: Path | None = None) -> str:
    """The text of a file, as `content` reads it."""
    raw = content(path, most, within)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: is no UTF-8 ({error.reason}); save it as UTF-8") from None


def json(path: Path, most: int = SMALL, within: Path | None = None) -> object:
    """The value in a JSON file, as `content` reads it. NaN and Infinity, which JSON has not, are refused."""
    read = text(path, most, within)
    try:
        return standard.loads(read, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not valid JSON ({error})") from None


def _finite(written: str) -> float:
    value = float(written)
    if not math.isfinite(value):
        raise ValueError(f"{written} is no finite number")
    return value
