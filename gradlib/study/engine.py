"""One notebook executed beside many others: a kernel with private sockets, one thread and long timeouts.

`papermill --engine gradlib` executes so. A run of a study is a process of `python -m gradlib.study.engine`.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from gradlib.data.files import one_line

# ipykernel opens a TCP port for what forked processes print; other users of the machine could write to it.
KERNEL_CONFIG = """\
from ipykernel import kernelapp


class IOPubThread(kernelapp.IOPubThread):
    def __init__(self, socket, pipe=False, **options):
        super().__init__(socket, **options)


kernelapp.IOPubThread = IOPubThread
"""
TIMEOUT_S = 600  # on a busy machine kernels start slowly, and what they print comes late


class Engine:
    """papermill's own engine, whose timeouts of 60 s and 4 s hardly one of fifty kernels would meet."""

    @staticmethod
    def execute_notebook(nb, kernel_name: str, start_timeout: int = 0, **options):
        """As papermill's own, but waits at least `TIMEOUT_S` for the kernel to start."""
        with _environment() as folder:
            options |= {"start_timeout": max(start_timeout, TIMEOUT_S), "config": _settings(folder)}
            return _base().execute_notebook(nb, kernel_name, **options)

    @staticmethod
    def nb_kernel_name(nb, name: str | None = None) -> str:
        """As papermill's own."""
        return _base().nb_kernel_name(nb, name)

    @staticmethod
    def nb_language(nb, language: str | None = None) -> str:
        """As papermill's own."""
        return _base().nb_language(nb, language)


def _base():
    from papermill.engines import NBClientEngine  # its import asks this module for `Engine`

    return NBClientEngine


@contextlib.contextmanager
def _environment() -> Iterator[str]:
    """Set the environment of a kernel, with a private folder for its files; gives that folder."""
    # A socket's path has at most 104 bytes on some systems, and their temporary folders are long.
    short = "/tmp" if os.path.isdir("/tmp") else None
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="gradlib-", dir=short, ignore_cleanup_errors=True) as folder:
        profile = Path(folder, "ipython/profile_default")
        profile.mkdir(parents=True)
        (profile / "ipython_kernel_config.py").write_text(KERNEL_CONFIG)
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        os.environ |= threads | before | {  # the runs share the cores
            "JUPYTER_RUNTIME_DIR": folder,
            "IPYTHONDIR": f"{folder}/ipython",  # no start-up files of the user, no shared history
            "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, not one of the user's
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            # Keep freed memory: a training step takes the same blocks again. Dask's workers set the opposite.
            "MALLOC_TRIM_THRESHOLD_": str(2**33),
            "MALLOC_MMAP_THRESHOLD_": str(2**25),  # glibc's largest
        }  # fmt: skip
        try:
            yield folder
        finally:
            os.environ.clear()
            os.environ |= before


def _settings(folder: str):
    """Use IPC sockets with a unique connection file, where the system has them.

    Kernels over TCP that start at the same time may be given the same ports, to which others can connect.
    """
    from traitlets.config import Config

    # A kernel logs a warning when it ends with its parent, which is meant here.
    client = {
        "extra_arguments": ["--log-level=40"],
        "iopub_timeout": TIMEOUT_S,
        "shutdown_kernel": "immediate",
    }
    manager = {"transport": "ipc", "connection_file": f"{folder}/{uuid.uuid4().hex}.json"}
    return Config({"NotebookClient": client} | ({} if os.name == "nt" else {"KernelManager": manager}))


def main() -> None:
    """Execute the notebook that one line of JSON on stdin names, and write its error to stdout as JSON.

    Ends, with its kernel, when stdin closes. Writes nothing if the kernel was killed.
    """
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the kernel inherits stdout
    logging.disable()  # what goes wrong is in the answer
    request = json.loads(sys.stdin.readline())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leaves all blocks: ends the kernel, cleans up
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        import papermill

        papermill.execute_notebook(
            **request, engine_name="gradlib", kernel_name="python3", progress_bar=False
        )
        json.dump("", answer)
    except Exception as error:  # of a cell, or of a kernel that did not start
        name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
        if name != "DeadKernelError":
            json.dump(f"{name}: {last_line(text)}", answer)


def last_line(text: object) -> str:
    """The last line of an error's text."""
    return one_line((str(text).strip().splitlines() or ["(no message)"])[-1])


def _end_with_stdin() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    os._exit(1)


if __name__ == "__main__":
    main()
