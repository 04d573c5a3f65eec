"""Who writes in a folder: an advisory lock on the folder itself, gone with the process that holds it.

No file is left behind. Where the system or the file system has no such locks (Windows, some network
drives), folders are taken without.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["held", "is_held", "keep"]

_kept: dict[tuple[int, int], int] = {}  # descriptors by device and inode of the folders kept


def keep(folder: Path, seconds: float) -> None:
    """Hold `folder` until this process ends, waiting up to `seconds` for another to let go.

    Raises BlockingIOError if it does not. A process that keeps the folder already goes on at once.
    """
    entry = folder.stat()
    key = entry.st_dev, entry.st_ino
    if key not in _kept:
        descriptor = _lock(folder, seconds)
        if descriptor is not None:
            _kept[key] = descriptor


@contextlib.contextmanager
def held(folder: Path, seconds: float) -> Iterator[None]:
    """Hold `folder` inside the block. Raises BlockingIOError as `keep` does."""
    descriptor = _lock(folder, seconds)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_held(folder: Path) -> bool | None:
    """Whether `folder` is held; None where that cannot be known."""
    if not folder.is_dir():
        return False
    try:
        descriptor = _lock(folder, 0, shared=True)
    except BlockingIOError:
        return True
    if descriptor is None:
        return None
    os.close(descriptor)
    return False


def _lock(folder: Path, seconds: float, shared: bool = False) -> int | None:
    """The descriptor whose closing ends the lock; None where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    until = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(descriptor)
                raise
            time.sleep(0.1)
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
