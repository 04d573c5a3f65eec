"""Which process writes in a folder: a lock on the file .lock in it, released when that process ends.

Where no lock can be had (a read-only folder, some network drives), folders are used without one.
"""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout

FILE = ".lock"
_locks: dict[Path, FileLock] = {}  # one for each folder in this process, which may hold a folder twice


def hold(folder: Path, timeout: float) -> contextlib.AbstractContextManager:
    """Lock `folder` for this process until it ends, or until the context returned is left, where it is used.

    timeout: seconds to wait for another process. Raises filelock.Timeout if that does not release it.
    """
    path = folder.resolve() / FILE
    lock = _locks.setdefault(path, FileLock(path, thread_local=False))
    if lock.is_locked and not path.exists():  # the folder was removed, and made again
        lock.release(force=True)
    try:
        return lock.acquire(timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError):
        return contextlib.nullcontext()


def is_held(folder: Path) -> bool:
    """Whether another process holds `folder`; False where that cannot be known."""
    if (folder / FILE).is_file():
        try:
            with hold(folder, 0):
                return False
        except Timeout:
            return True
    return False
