"""The set-up: dependencies in one list, pinned; rooms, notebooks and their sizes; no trace of a machine."""

import ast
import importlib
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
LISTS = [PROJECT["dependencies"], *(texts for extra, texts in EXTRAS.items() if extra != "bench")]
DEPENDENCIES = [one for texts in LISTS for one in map(Requirement, texts) if one.name != PROJECT["name"]]
PINS = {
    canonicalize_name(line.split("==")[0]): line.split("==")[1]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGE = ROOT / "gradlib"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
CORE = ("config.py", "model", "balance", "train")


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


def code_of(notebook: Path) -> str:
    """The code of a notebook's cells, without IPython's magics."""
    cells = nbformat.read(notebook, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    return re.sub(r"^\s*%.*$", "", code, flags=re.MULTILINE)


def imports(source: str) -> list[tuple[str, str, str | None]]:
    """All imports of `source`: module, name (of `from module import name`, else ""), alias."""
    nodes = list(ast.walk(ast.parse(source)))
    whole = [
        (one.name, "", one.asname) for node in nodes if isinstance(node, ast.Import) for one in node.names
    ]
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return whole + [(node.module, one.name, one.asname) for node in parts for one in node.names]


def test_what_is_imported_is_declared():
    names = [dependency.name for dependency in DEPENDENCIES]
    # What a dependency requires itself is there too: papermill brings tqdm, ipywidgets brings IPython.
    for name in list(names):
        required = importlib.metadata.requires(name) if name not in ("playwright", "psutil") else []
        names += [Requirement(text).name for text in required or () if "extra ==" not in text]
    declared = {canonicalize_name(name) for name in names}
    owners = importlib.metadata.packages_distributions()
    sources = {path.name: code_of(path) for path in NOTEBOOKS}
    for folder in ("gradlib", "tests", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            sources[str(path.relative_to(ROOT))] = path.read_text()
    for name, source in sources.items():
        for module in {module.partition(".")[0] for module, *_ in imports(source)} - {"gradlib"}:
            if module in sys.stdlib_module_names or (ROOT / Path(name).parent / f"{module}.py").exists():
                continue
            # What an extra brings may be missing here; it bears the name of what it is imported as.
            owned = {canonicalize_name(owner) for owner in owners.get(module, [module])}
            assert owned & declared, f"{name} imports {module}, pyproject.toml has it not"


def test_few_packages_are_required():
    assert len(PROJECT["dependencies"]) <= 22


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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_imports_few_names_of_gradlib_under_their_own_names(path):
    names = [one for one in imports(code_of(path)) if one[0].partition(".")[0] == "gradlib"]
    assert len(names) <= 8, names
    assert not any(alias for _, _, alias in names)


def test_every_module_is_in_a_room():
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", "checks", "config"}
    assert set(ROOMS) == {path.parent.name for path in PACKAGE.glob("*/*.py")}


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_a_room_lists_its_modules_and_offers_what_exists(room):
    package = importlib.import_module(f"gradlib.{room}".rstrip("."))
    if room:
        listed = re.findall(r"^ *(\w+)  +\S", package.__doc__, re.MULTILINE)
        assert sorted(listed) == sorted(p.stem for p in (PACKAGE / room).glob("*.py") if p.stem != "__init__")
    assert len(set(package.__all__)) == len(package.__all__) > 0
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing_like_that'"):
        package.nothing_like_that  # noqa: B018


def lines(*places: Path) -> int:
    """The lines of code, templates and texts in files and folders."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    kinds = (".py", ".j2", ".yaml", ".md")
    return sum(len(file.read_text().splitlines()) for file in files if file.suffix in kinds)


def test_the_code_stays_small():
    assert lines(*(PACKAGE / name for name in CORE)) <= 2800
    assert lines(PACKAGE) <= 12_170  # to come down
    assert lines(ROOT / "README.md") <= 250


def test_importing_the_package_is_silent():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import gradlib"], cwd=ROOT, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_version_is_given_once():
    import gradlib

    assert gradlib.__version__ == PROJECT["version"]


def test_what_is_promised_is_held_by_tests():
    rows = [line for line in (ROOT / "tests/PROMISES.md").read_text().splitlines() if line.startswith("|")][
        2:
    ]
    for row in rows:
        parts = re.findall(r"`([\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", row)
        assert parts, row
        for file, tests in parts:
            there = re.findall(r"^def (test_\w+)", (ROOT / "tests" / file).read_text(), re.MULTILINE)
            assert set(re.findall(r"`(test_\w+)`", tests)) <= set(there), row
    assert len(rows) >= 12
