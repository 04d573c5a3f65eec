"""Files of a stranger's data set, read within bounds: no pipe is waited for, nothing read beyond a size."""

import os
import stat
from pathlib import Path

from gradlib.data.faults import Fault

__all__ = ["boundary_of", "content", "is_inside", "relative"]


def boundary_of(root: Path) -> Path:
    """The place of a data set whose data.yaml is in `root`: the folder that holds `root`.

    Exports name `../train/images`. Beyond it nothing is read, whatever data.yaml or a link says.
    """
    return Path(os.path.realpath(root.parent))


def is_inside(path: Path, boundary: Path) -> bool:
    """Whether `path`, with links followed, is in `boundary`."""
    return Path(os.path.realpath(path)).is_relative_to(boundary)


def content(path: Path, noun: str, most: int, boundary: Path | None = None) -> bytes:
    """The bytes of a regular file of at most `most` bytes in `boundary`; raises Fault about the `noun`."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            kind = stat.filemode(about.st_mode)
            raise Fault(f"{noun} that is no regular file", "replace it by a file", kind)
        if boundary and not is_inside(path, boundary):
            cure = f"copy it into {boundary.name or boundary}"
            raise Fault(f"{noun} outside of the data set's place", cure, os.path.realpath(path))
        if about.st_size > most:
            raise Fault(f"{noun} that is too large", f"{most:,} bytes at most", f"{about.st_size:,} bytes")
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        value = error.strerror or str(error)
        raise Fault(f"{noun} that cannot be opened", "correct the link or the permissions", value) from None


def relative(file: Path, root: Path) -> str:
    """`file` as seen from `root`, with forward slashes."""
    return Path(os.path.relpath(file, root)).as_posix()
