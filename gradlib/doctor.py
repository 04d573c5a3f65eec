"""What of all that gradlib needs this machine has, and what installs the rest: `python -m gradlib doctor`.

It answers where a package that gradlib requires is missing or broken, for that is when it is asked. So each
check imports what it needs by itself.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import NamedTuple

__all__ = ["Finding", "describe", "examine"]

OK, LACKING, WRONG = "ok", "--", "!!"
LEGEND = f"{OK} there   {LACKING} not there, and gradlib goes without   {WRONG} needed, and missing or wrong"
INSTALL = "python -m pip install -c constraints.txt -e ."
WIDGETS = "@jupyter-widgets/jupyterlab-manager"  # where JupyterLab looks for its half of ipywidgets


class Finding(NamedTuple):
    """What was found of one thing: OK, LACKING or WRONG; if not OK also what for, and the cure."""

    mark: str
    what: str
    said: str
    cure: str = ""


def examine() -> list[Finding]:
    """All that CHECKS find. A check that fails, whatever with, is a finding itself."""
    found = []
    for what, check in CHECKS.items():
        try:
            for one in check():
                found.append(one)  # one by one: what was found before it failed stays
        except Exception as error:  # a package that is missing, or breaks when it is imported
            said = (str(error).strip().splitlines() or ["no more is said"])[0]
            found.append(Finding(WRONG, what, f"{type(error).__name__}: {said}", INSTALL))
    return found


def describe(found: Iterable[Finding], columns: int = 100) -> str:
    """A table of what was found, in lines of at most so many `columns` but for cures, which are to be copied;
    then what the marks mean."""
    lines = []
    for mark, what, said, cure in found:
        start, indent = f"{mark}  {what:16}  ", " " * 22
        lines += textwrap.wrap(said, columns, initial_indent=start, subsequent_indent=indent)
        lines += [f"{indent}> {cure}"] if cure else []
    return "\n".join([*lines, "", LEGEND])


# --- the checks: each gives its findings ---


def _python() -> Iterator[Finding]:
    there, needed = platform.python_version(), metadata("gradlib")["Requires-Python"].removeprefix(">=")
    if _release(there) < _release(needed):
        yield Finding(WRONG, "Python", f"{there}; gradlib needs {needed}", f"make PYTHON=python{needed} lab")
    else:
        yield Finding(OK, "Python", f"{there}, {sys.executable}")


def _packages() -> Iterator[Finding]:
    # Each is `name>=version`. `packaging` would read any, and may be what is missing.
    required = [line.split(">=") for line in requires("gradlib") if "extra ==" not in line]
    there = 0
    for name, needed in required:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        if found and _release(found) >= _release(needed):
            there += 1
        else:
            yield Finding(WRONG, name, f"{found or 'missing'}; gradlib needs {needed} or newer", INSTALL)
    mark = OK if there == len(required) else WRONG
    yield Finding(mark, "packages", f"{there} of the {len(required)} that gradlib requires")


def _torch() -> Iterator[Finding]:
    import torch

    from gradlib.config import PRECISIONS, Training
    from gradlib.devices import fabric_for

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    yield Finding(OK, "PyTorch", f"{torch.__version__}, {built}")
    device = fabric_for(Training()).device
    if device.type == "cuda":
        free, total = (f"{size / 2**30:.0f}" for size in torch.cuda.mem_get_info(device))
        count = f"{torch.cuda.device_count()} x " if torch.cuda.device_count() > 1 else ""
        name = f"{count}{torch.cuda.get_device_name(device)}, {free} of {total} GiB of memory free"
    else:
        name = platform.processor() or platform.machine()
    yield Finding(OK, "device", f"{device.type}: {name}")
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        cure = "a PyTorch for the CUDA that nvidia-smi names: https://pytorch.org/get-started/locally"
        yield Finding(LACKING, "GPU", f"an NVIDIA driver is here, and PyTorch ({built}) sees no GPU", cure)
    for precision in PRECISIONS:
        try:
            fabric_for(Training(precision=precision))
        except ValueError as error:
            yield Finding(LACKING, "precision", str(error))
        else:
            yield Finding(OK, "precision", precision)


def _machine() -> Iterator[Finding]:
    from dask.system import CPU_COUNT  # as a study counts them, which has a worker a core

    folder, memory = Path.cwd(), ""
    if (file := Path("/proc/meminfo")).is_file():
        kibibytes = dict(re.findall(r"^(\w+): +(\d+)", file.read_text(), flags=re.MULTILINE))
        memory = f"{int(kibibytes['MemAvailable']) / 2**20:.0f} GiB of memory free, "
    disk = f"{shutil.disk_usage(folder).free / 2**30:.0f} GiB of disk free in {folder}"
    yield Finding(OK, "machine", f"cores: {CPU_COUNT}, {memory}{disk}")


def _git() -> Iterator[Finding]:
    lacking = "runs do not record the revision of gradlib"
    if shutil.which("git") is None:
        yield Finding(LACKING, "git", f"missing; {lacking}", "Debian: git, conda-forge: git")
        return
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it does not say why"])[0]
        yield Finding(LACKING, "git", f"{lacking}: {why}", "install gradlib from a clone of its repository")
    else:
        yield Finding(OK, "git", f"runs record the revision of gradlib, {done.stdout.strip()}")


def _jupyter() -> Iterator[Finding]:
    from jupyter_core.paths import jupyter_path

    # For these names Jupyter starts its own Python, and where there is no such file it makes one of its own.
    own = {"python", "python3", f"python3.{sys.version_info.minor}"}
    files = (Path(folder) / "python3/kernel.json" for folder in jupyter_path("kernels"))
    file = next(filter(Path.is_file, files), None)
    starts = json.loads(file.read_text(encoding="utf-8"))["argv"][0] if file else "python"
    kernel = f"python3 of this environment, ipykernel {version('ipykernel')}"
    if starts not in own and Path(starts).parent != Path(sys.executable).parent:
        said = f"python3 ({file}) starts {starts}, which is not this environment's Python"
        cure = "python -m ipykernel install --sys-prefix; export JUPYTER_PREFER_ENV_PATH=1"
        yield Finding(WRONG, "kernel", said, cure)
    elif _release(version("ipykernel")) < (7,):
        said = f"{kernel}; before 7 a button waits while a cell runs"
        yield Finding(LACKING, "kernel", said, "python -m pip install 'ipykernel>=7'")
    else:
        yield Finding(OK, "kernel", kernel)
    yield Finding(OK, "JupyterLab", version("jupyterlab"))
    if any((Path(folder) / WIDGETS).is_dir() for folder in jupyter_path("labextensions")):
        half = f"with its half in JupyterLab, jupyterlab_widgets {version('jupyterlab_widgets')}"
        yield Finding(OK, "ipywidgets", f"{version('ipywidgets')}, {half}")
    else:
        said = (
            f"{version('ipywidgets')}; JupyterLab has not its half, jupyterlab_widgets, and shows no sliders"
        )
        cure = "python -m pip install --force-reinstall --no-deps jupyterlab_widgets"
        yield Finding(WRONG, "ipywidgets", said, cure)


def _pages() -> Iterator[Finding]:
    from gradlib import fonts, pages

    for what, printed in (("figures", False), ("PDF", True)):
        lacking = fonts.lacks("zh-Hant", printed)
        there = "in Traditional Chinese" + ("" if printed else f" by {fonts.chinese()}")
        yield Finding(LACKING, what, lacking) if lacking else Finding(OK, what, there)
    if program := pages.browser():
        yield Finding(OK, "browser", f"{program} prints PDF")
    else:
        yield Finding(LACKING, "browser", pages.NO_BROWSER, "Debian: chromium")


def _methods() -> Iterator[Finding]:
    from gradlib.torchjd_balancers import EXTRAS, from_torchjd

    for name in EXTRAS:
        try:
            from_torchjd(name, [1.0, 1.0], {})
        except ModuleNotFoundError as error:
            said, _, cure = str(error).partition("; install them with: ")
            yield Finding(LACKING, name, said, cure)
        else:
            yield Finding(OK, name, "the balancer has the packages it needs")


def _optional() -> Iterator[Finding]:
    for name, use in (("dask-jobqueue", "studies on SLURM"), ("playwright", "the tests in a browser")):
        try:
            yield Finding(OK, name, f"{version(name)}, for {use}")
        except PackageNotFoundError:
            yield Finding(LACKING, name, f"missing; for {use}", f"python -m pip install {name}")


CHECKS = {
    "Python": _python,
    "packages": _packages,
    "PyTorch": _torch,
    "machine": _machine,
    "git": _git,
    "Jupyter": _jupyter,
    "pages": _pages,
    "TorchJD": _methods,
    "optional": _optional,
}


def _release(text: str) -> tuple[int, ...]:
    """The numbers of a version, to compare: (2, 13, 0) of "2.13.0+cpu"."""
    return tuple(map(int, re.match(r"\d+(?:\.\d+)*", text)[0].split(".")))
