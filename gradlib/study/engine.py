"""How a notebook is executed beside others: a kernel of its own, patience, and nothing that two could share.

`papermill --engine gradlib` executes so, and so does every run of a study.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping

from traitlets.config import Config

__all__ = ["Engine"]

PATIENCE = 600  # seconds: on a busy machine kernels start slowly, and what they print comes late


class Engine:
    """papermill's own, for many notebooks at once.

    Alone, papermill waits a minute for a kernel, and four seconds for what a cell has printed once the cell
    has ended: of fifty notebooks that start together on two cores hardly one comes through. Its kernels talk
    over ports, for which see `_settings`.
    """

    @staticmethod
    def execute_notebook(nb, kernel_name: str, start_timeout: int = 0, **options):
        """As papermill's own; of `start_timeout` (seconds) and `PATIENCE` the longer counts."""
        with _surroundings() as private:
            options |= {"start_timeout": max(start_timeout, PATIENCE), "config": _settings(private)}
            return _own().execute_notebook(nb, kernel_name, **options)

    @staticmethod
    def nb_kernel_name(nb, name: str | None = None) -> str:
        """As papermill's own."""
        return _own().nb_kernel_name(nb, name)

    @staticmethod
    def nb_language(nb, language: str | None = None) -> str:
        """As papermill's own."""
        return _own().nb_language(nb, language)


def _own():
    from papermill.engines import NBClientEngine  # whose import asks this module for `Engine`

    return NBClientEngine


@contextlib.contextmanager
def _surroundings() -> Iterator[str]:
    """The environment that a kernel needs, with a private folder for its files; gives that folder."""
    # A socket's path has at most 104 bytes on some systems, and their temporary folders are long.
    short = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="gradlib-", dir=short, ignore_cleanup_errors=True) as private:
        environment = {
            "JUPYTER_RUNTIME_DIR": private,
            "IPYTHONDIR": f"{private}/ipython",  # no start-up files of the user, no shared history
            "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            # Dask has workers hand memory back to the system at once. A training step takes the
            # same blocks again and again, and faulting them in anew costs it half as much again.
            "MALLOC_TRIM_THRESHOLD_": str(2**33),
            "MALLOC_MMAP_THRESHOLD_": str(2**25),  # glibc's largest
        }
        # One thread a kernel, unless this process was told otherwise: the runs share the cores.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = os.environ.get(name, "1")
        with _environment(environment):
            yield private


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _settings(private: str) -> Config:
    """Of the kernel. It talks over sockets in the file system, where there are such, with names of its own.

    A kernel over TCP is given ports that were free a moment ago. Kernels that start at the same
    time in several processes are now and then given the same ones, and hang; with the default name
    of the sockets, likewise.
    """
    # That its parent has died, a kernel tells as a warning before it ends: `Pool` has said so.
    client = {"extra_arguments": ["--log-level=40"], "iopub_timeout": PATIENCE}
    settings = {"NotebookClient": client}
    if os.name != "nt":
        name = f"{private}/{uuid.uuid4().hex}.json"
        settings["KernelManager"] = {"transport": "ipc", "connection_file": name}
    return Config(settings)
