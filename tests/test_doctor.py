"""`gradlib doctor` says what a machine lacks, above all where a required package cannot be imported."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from gradlib import __main__, devices, doctor, fonts, pages
from gradlib.doctor import LACKING, OK, WRONG

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def marks(found) -> dict[str, str]:
    return {one.what: one.mark for one in found}


@pytest.fixture
def installed(monkeypatch):
    """Gives a function that makes the named packages have these versions, or (None) be missing."""
    real = doctor.version

    def pretend(**versions: str | None) -> None:
        def version(name: str) -> str:
            if name.replace("-", "_") not in versions:
                return real(name)
            if (made := versions[name.replace("-", "_")]) is None:
                raise doctor.PackageNotFoundError(name)
            return made

        monkeypatch.setattr(doctor, "version", version)

    return pretend


def test_this_environment_is_complete(capsys):
    assert __main__.main(["doctor"]) == 0
    table = capsys.readouterr().out
    assert re.search(r"ok  packages +(\d+) of the \1 that gradlib requires", table)
    assert "32-true" in table and "ipykernel" in table and WRONG not in table.replace(doctor.LEGEND, "")


def test_it_answers_where_nothing_can_be_imported():
    missing = ("torch", "dask", "jupyter_core", "matplotlib", "nbconvert", "pandas", "numpy", "yaml")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import gradlib.__main__ as m"
    command = [sys.executable, "-c", f"{code}; sys.exit(m.main(['doctor']))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    for what in ("PyTorch", "machine", "Jupyter", "pages", "TorchJD"):
        assert f"{WRONG}  {what:16}  ModuleNotFoundError: " in done.stdout
    assert f"> {doctor.INSTALL}" in done.stdout and f"{OK}  Python " in done.stdout


@pytest.mark.parametrize("line", PROJECT["dependencies"])
def test_requirements_are_of_the_kind_that_is_read(line):
    requirement = Requirement(line)
    assert line.split(">=") == [requirement.name, str(requirement.specifier).removeprefix(">=")]


def test_what_is_missing_or_too_old_is_named_with_the_command(installed):
    installed(kornia=None, torch="2.5.1+cu124", pandas="2.10.0")  # 10 is more than 2, as a number
    kornia, torch, packages = doctor._packages()
    assert kornia == (WRONG, "kornia", "missing; gradlib needs 0.8 or newer", doctor.INSTALL)
    assert torch[:3] == (WRONG, "torch", "2.5.1+cu124; gradlib needs 2.6 or newer")
    assert packages.mark == WRONG and re.match(r"\d+ of the ", packages.said)


def test_a_processor_without_bfloat16(monkeypatch):
    real = devices.fabric_for

    def fabric_for(training):
        if training.precision != "32-true":
            raise ValueError("this processor has no bfloat16")
        return real(training)

    monkeypatch.setattr(devices, "fabric_for", fabric_for)
    found = [one for one in doctor._torch() if one.what == "precision"]
    assert [(one.mark, one.said) for one in found] == [
        (OK, "32-true"),
        (LACKING, "this processor has no bfloat16"),
    ]


@pytest.mark.parametrize(
    ("python", "mark"), [("python", OK), (sys.executable, OK), ("/elsewhere/bin/python3", WRONG)]
)
def test_the_kernel_is_of_this_environment(python, mark, tmp_path, monkeypatch):
    file = tmp_path / "kernels/python3/kernel.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"argv": [python, "-m", "ipykernel_launcher"]}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel = next(doctor._jupyter())
    assert kernel.mark == mark and (mark == OK or python in kernel.said)


def test_an_older_kernel_and_widgets_without_their_half(installed, tmp_path, monkeypatch):
    installed(ipykernel="6.29.5")
    monkeypatch.setattr(doctor, "WIDGETS", "nowhere")
    found = list(doctor._jupyter())
    assert marks(found) == {"kernel": LACKING, "JupyterLab": OK, "ipywidgets": WRONG}


def test_what_is_optional_is_said_and_is_no_fault(installed, monkeypatch):
    installed(dask_jobqueue=None, playwright="1.50")
    monkeypatch.setattr(fonts, "lacks", lambda language, printed: "no font here has Chinese letters")
    monkeypatch.setattr(pages, "browser", lambda: None)
    monkeypatch.setattr("gradlib.torchjd_balancers.from_torchjd", refuse)
    found = [*doctor._pages(), *doctor._methods(), *doctor._optional()]
    assert set(marks(found).values()) - {OK} == {LACKING}
    assert marks(found)["playwright"] == OK and marks(found)["dask-jobqueue"] == LACKING
    assert {one.cure for one in found} >= {"pip install 'torchjd[cagrad]'", "Debian: chromium"}


def refuse(name, weights, options):
    raise ModuleNotFoundError(
        f"balancer {name} needs packages that are missing; install them with: pip install 'torchjd[cagrad]'"
    )


def test_a_revision_that_cannot_be_recorded(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert [one.mark for one in doctor._git()] == [LACKING]
    monkeypatch.setattr(doctor.shutil, "which", lambda name: name)
    failed = subprocess.CompletedProcess([], 128, stdout="", stderr="fatal: not a git repository\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *arguments, **options: failed)
    (git,) = doctor._git()
    assert git.mark == LACKING and "fatal: not a git repository" in git.said and git.cure


def test_the_table_is_aligned_and_its_cures_are_whole():
    cure = "python -m pip install --force-reinstall --no-deps " + "a" * 80
    lines = doctor.describe([doctor.Finding(WRONG, "one", "word " * 40, cure)], 60).splitlines()
    assert lines[0].startswith("!!  one               word word") and lines[1].startswith(" " * 22 + "word")
    assert max(map(len, lines[:5])) <= 60
    assert " " * 22 + f"> {cure}" in lines and lines[-1] == doctor.LEGEND
