"""Study files of a stranger: each is one line with its place, soon, and nothing of theirs is run."""

import os
import time

import pytest

from gradlib.__main__ import main
from gradlib.data.files import MAX_BYTES
from gradlib.study.spec import read

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "holds more than 100,000 values"),
        (MERGES, "holds more than 100,000 values"),
        ("solutions: &a [*a]\n", "is nested too deeply, or within itself"),
        ("solutions: " + "[" * 5000 + "]" * 5000, "is nested too deeply"),
        ("solutions: [dual]\nname: \0x\n", "not valid YAML: unacceptable character #x0000"),
        ('solutions: [dual]\nname: "\\0x"\n', "line 2: '\\x00x' holds a character that cannot be shown"),
        ('solutions: [{name: "\\e[31mred", from: dual}]\n', "line 1: '\\x1b[31mred' holds a character"),
        ('solutions: [{name: x, from: dual, description: "\\u202Egnp"}]\n', "holds a character that cannot"),
        ("solutions:\n\t- dual\n", "line 2: not valid YAML: found character '\\t'"),
        ("solutions: [dual]\n? [a, b]\n: 1\n", "line 2: not valid YAML: found unhashable key"),
        ("1: 2\n", "line 1: unknown key '1'"),
        ("null: 2\n", "demo.yaml: unknown key 'None'"),
        ("solutions: [{name: x, from: dual, 1: 2}]\n", "line 1: solution 'x': unknown setting 1"),
        ("solutions: [dual]\nparameters: {1: 2}\n", "line 2: unknown parameter '1'"),
        ("solutions: [!!python/name:os.system x]\n", "line 1: 'x' is read as 'python/name:os"),
        ("solutions: [!!python/object/apply:os.system [touch canary]]\n", "line 1: "),
        ("solutions: [!!binary aGVsbG8=]\n", "line 1: 'aGVsbG8=' is read as 'binary'; put a text in quotes"),
        ("solutions: !!set {dual}\n", "line 1: "),
        ("solutions: [!!int dual]\n", "not valid YAML: invalid literal for int()"),
        ("solutions: [!!bool dual]\n", "not valid YAML: 'dual'; leave tags out"),
        ("name: 2020-01-01\nsolutions: [dual]\n", "line 1: '2020-01-01' is read as 'timestamp'"),
        ("name: true\nsolutions: [dual]\n", "line 1: 'name' is True: take letters"),
        ("name: ..\nsolutions: [dual]\n", "line 1: 'name' is '..': take letters"),
        ("name: /tmp/x\nsolutions: [dual]\n", "line 1: 'name' is '/tmp/x': take letters"),
        ("name: nul.txt\nsolutions: [dual]\n", "line 1: 'name' is 'nul.txt': means a device on Windows"),
        (f"name: {'x' * 201}\nsolutions: [dual]\n", "has 201 bytes; take at most 200"),
        (f"name: {'x' * 5000}\nsolutions: [dual]\n", "line 1: 'xxxx"),
        ("solutions: [{name: ../../x, from: dual}]\n", "line 1: solution '../../x': take letters"),
        ("solutions: [{name: x., from: dual}]\n", "line 1: solution 'x.': take letters"),
        ("solutions: [{name: [x], from: dual}]\n", "line 1: "),
        (
            "solutions: [{name: x, from: {from: dual}}]\n",
            "line 1: solution {'from': 'dual'}: give it a 'name'",
        ),
        (
            "solutions: [dual]\nparameters: {learning_rate: .nan}\n",
            "line 2: 'learning_rate' is nan; give a finite",
        ),
        ("solutions: [gradnorm]\nparameters: {alpha: 1e999}\n", "line 2: 'alpha' is inf; give a finite"),
        ("solutions: [{from: dual, name: x, width: -.inf}]\n", "line 1: 'width' is -inf; give a finite"),
        (
            "solutions: [dual]\nparameters: {epochs: 1000000000}\n",
            "line 2: 'epochs' is 1000000000; give at most",
        ),
        (f"solutions: [dual]\nparameters: {{epochs: {'9' * 5000}}}\n", "line 2: '999"),
        (f"solutions: [dual]\nseeds: [{'9' * 90}]\n", "give numbers from 0 to 4294967295"),
        (
            f"solutions: [dual]\nseeds: {list(range(10_001))}\n",
            "line 1: the study has 10,001 runs; give at most",
        ),
        (f"solutions: [dual]\nseeds: {[0] * 10_001}\n", "give a list of different whole numbers"),
        (
            "solutions: [gradnorm]\ngrid:\n"
            + f"  alpha: {list(range(1000))}\n"
            + "".join(f"  {key}: {[i / 1000 for i in range(1, 1001)]}\n" for key in ("width", "weights")),
            "line 2: these are 1,000,000 combinations; give fewer values",  # of the solution's own fields
        ),
        (
            f"solutions: [{{from: gradnorm, grid: {{alpha: {list(range(1001))}}}}}]\n",
            "line 1: these are 1,001 ",
        ),
        (
            "search: {solution: gradnorm, space: {"
            + ", ".join(f"{key}: {list(range(1, 101))}" for key in ("width", "branch"))
            + "}}\n",
            "line 1: these are 10,000 combinations",
        ),
        (
            "search: {solution: gradnorm, space: {alpha: {low: 0.0, high: 1.0e+300, step: 1.0e-300}}}\n",
            "which is no multiple of its 'step'",
        ),
        (
            "search: {solution: {name: ../x, from: gradnorm}, space: {alpha: [1]}}\n",
            "solution '../x': take letters",
        ),
        ("search: {solution: gradnorm, space: {alpha: [1]}, trials: 1000000000}\n", "at most 1,000,000"),
        (f"solutions: [dual]\ndata: {'x' * 300}/data.yaml\n", "is no file"),
        (f"solutions: [dual]\ndata: {'x' * 300}\n", "is no file"),
    ],
)
def test_a_hostile_study_file_is_one_line(project, capsys, text, expected):
    (project / "notebooks/04_search.ipynb").write_bytes((project / "notebooks/02_compare.ipynb").read_bytes())
    (project / "notebooks/demo.yaml").write_text(text)
    began = time.monotonic()
    assert main(["study", "notebooks/demo.yaml"]) == 2
    assert time.monotonic() - began < 10
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and len(captured.err) < 1000
    assert captured.err.startswith("gradlib: notebooks/demo.yaml") and captured.err[:-1].isprintable()
    assert expected in captured.err
    assert sorted(path.name for path in project.iterdir()) == ["notebooks"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# " + b"x" * MAX_BYTES, "demo.yaml: has 4 MiB; at most 4 MiB of such a file are read"),
        (
            "solutions: [dual]".encode("utf-16"),
            "demo.yaml, line 1: is no UTF-8 (invalid start byte); save it",
        ),
        (b"solutions: [dual]\nname: \xff\n", "demo.yaml, line 2: is no UTF-8"),
    ],
)
def test_a_study_file_that_is_no_text_is_one_line(project, capsys, content, expected):
    (project / "notebooks/demo.yaml").write_bytes(content)
    assert main(["study", "notebooks/demo.yaml"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and expected in line


def test_a_folder_and_a_pipe_are_no_study_files(project, capsys):
    assert main(["study", "notebooks"]) == 2
    assert capsys.readouterr().err == "gradlib: notebooks: is no ordinary file\n"
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.yaml")
        assert main(["study", "pipe.yaml"]) == 2  # nobody writes there: opened, it would wait for ever
        assert capsys.readouterr().err == "gradlib: pipe.yaml: is no ordinary file\n"


def test_an_alias_is_fine(project):
    text = "solutions: [&one gradnorm, {name: late, from: *one, branch: p4}]\n"
    (project / "notebooks/demo.yaml").write_text(text)
    assert [job.solution for job in read("notebooks/demo.yaml").runs] == ["gradnorm", "late"]
