"""The set-up: one list of dependencies, pinned; a repository that can be cloned anywhere."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["browser"]]
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def files() -> list[Path]:
    """Every file that git has or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git clone")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda dependency: dependency.name)
def test_each_dependency_is_pinned_within_its_range(dependency):
    pin = PINS[canonicalize_name(dependency.name)]
    assert dependency.specifier.contains(pin)


def test_constraints_are_exact_and_sorted():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins == sorted(pins, key=str.upper)
    # No local version ("+cpu"): every machine takes the build that fits it.
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_conda_installs_the_same():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    python, pip, through_pip = environment["dependencies"]
    # Nothing from conda but Python itself: there is no second list that could differ.
    assert through_pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert pip == "pip"
    version = python.removeprefix("python=")
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(version)
    make = (ROOT / "Makefile").read_text()
    assert "-c constraints.txt -e '.[dev]'" in make


def test_what_is_imported_is_declared():
    declared = {canonicalize_name(dependency.name) for dependency in DEPENDENCIES}
    owners = importlib.metadata.packages_distributions()
    sources = {
        str(path.relative_to(ROOT)): path.read_text()
        for folder in ("gradlib", "tests", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        sources[path.name] = re.sub(r"^\s*%.*$", "", code, flags=re.MULTILINE)
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            for module in {module.partition(".")[0] for module in modules} - {"gradlib"}:
                if module in sys.stdlib_module_names or (ROOT / Path(name).parent / f"{module}.py").exists():
                    continue
                # What an extra brings may be missing here; it bears the name of what it is imported as.
                owned = {canonicalize_name(owner) for owner in owners.get(module, [module])}
                assert owned & declared, f"{name} imports {module}, pyproject.toml has it not"


def test_no_file_names_a_machine():
    # Written in two parts, or this file would name them itself.
    index = "|".join(("pypi" + r"\.org", "python" + r"hosted\.org", "--index" + "-url", "--find" + "-links"))
    folder = "|".join(
        ("/ho" + r"me/\w", "/Us" + r"ers/\w", "/ro" + "ot/", "/wo" + "rk/", r"[A-Z]:\\" + "Users")
    )
    pattern = re.compile(f"{index}|(?<![\\w.])({folder})")
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(text.splitlines(), 1):
            found = pattern.search(line)
            assert not found, f"{path.relative_to(ROOT)}, line {number}: {found}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_clean_and_documented(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        if cell.cell_type == "code":  # `make strip` mends these two
            assert cell.outputs == []
            assert cell.execution_count is None
            assert "papermill" not in cell.metadata
    # papermill reads the parameters cell line by line, and must see every name, with its help.
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    assigned = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.AnnAssign)]
    seen = papermill.inspect_notebook(path)
    assert list(seen) == [node.target.id for node in assigned]
    assert all(value["help"] for value in seen.values())


def test_importing_the_package_is_cheap_and_silent():
    code = "import gradlib, sys; assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_version_is_given_once():
    import gradlib

    assert gradlib.__version__ == PROJECT["version"]


def test_what_the_readme_promises_is_held_by_tests():
    promises = (ROOT / "README.md").read_text().split("## What is promised")[1].split("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("|")][2:]
    for row in rows:
        parts = re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", row)
        assert parts, row
        for file, tests in parts:
            there = re.findall(r"^def (test_\w+)", (ROOT / "tests" / file).read_text(), re.MULTILINE)
            assert set(re.findall(r"`(test_\w+)`", tests)) <= set(there), row
    assert len(rows) >= 12
