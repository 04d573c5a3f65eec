"""Study files of a stranger: each is one line with its place, soon, and nothing of theirs is run."""

import os
import time

import pytest

from gradlib.__main__ import main
from gradlib.data.files import MAX_BYTES
from gradlib.study.spec import read_spec

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "line 1: more than 100,000 values"),
        (MERGES, "line 2: more than 100,000 values"),
        ("solutions: &a [*a]\n", "line 1: nested too deeply, or within itself"),
        ("solutions: " + "[" * 5000 + "]" * 5000, "line 1: nested more than 20 deep"),
        ("solutions: [dual]\nname: \0x\n", "line 2: is not UTF-8 text (NUL bytes)"),
        ('solutions: [dual]\nname: "\\0x"\n', "line 2: '\\x00x' holds a character that cannot be shown"),
        ('solutions: [{name: "\\e[31mred", from: dual}]\n', "line 1: '\\x1b[31mred' holds a character"),
        ('solutions: [{name: x, from: dual, description: "\\u202Egnp"}]\n', "holds a character that cannot"),
        ("solutions:\n\t- dual\n", "line 2: not valid YAML: found character '\\t'"),
        ("solutions: [dual]\n? [a, b]\n: 1\n", "line 2: a key that is not a text"),
        ("1: 2\n", "line 1: 1: unknown key 1 here"),
        ("null: 2\n", "demo.yaml: None: unknown key None here"),
        ("solutions: [{name: x, from: dual, 1: 2}]\n", "line 1: solutions[0][1]: expected strings, got 1"),
        ("solutions: [dual]\nparameters: {1: 2}\n", "line 2: parameters.1: unknown key 1 here"),
        ("solutions: [!!python/name:os.system x]\n", "line 1: the tag 'tag:yaml.org,2002:python/name:os"),
        ("solutions: [!!python/object/apply:os.system [touch canary]]\n", "line 1: "),
        ("solutions: [!!binary aGVsbG8=]\n", "line 1: the tag 'tag:yaml.org,2002:binary': leave it out"),
        ("solutions: !!set {dual}\n", "line 1: "),
        ("solutions: [!!int dual]\n", "line 1: the tag 'tag:yaml.org,2002:int': leave it out"),
        ("solutions: [!!bool dual]\n", "line 1: the tag 'tag:yaml.org,2002:bool': leave it out"),
        ("name: true\nsolutions: [dual]\n", "line 1: name: the study True: take letters"),
        ("name: ..\nsolutions: [dual]\n", "line 1: name: the study '..': take letters"),
        ("name: /tmp/x\nsolutions: [dual]\n", "line 1: name: the study '/tmp/x': take letters"),
        (
            "name: nul.txt\nsolutions: [dual]\n",
            "line 1: name: the study 'nul.txt': means a device on Windows",
        ),
        (f"name: {'x' * 201}\nsolutions: [dual]\n", "has 201 bytes; take at most 200"),
        (f"name: {'x' * 5000}\nsolutions: [dual]\n", "line 1: 'xxxx"),
        (
            "solutions: [{name: ../../x, from: dual}]\n",
            "line 1: solutions[0].name: solution '../../x': take letters",
        ),
        ("solutions: [{name: x., from: dual}]\n", "line 1: solutions[0].name: solution 'x.': take letters"),
        ("solutions: [{name: [x], from: dual}]\n", "line 1: "),
        (
            "solutions: [{name: x, from: {from: dual}}]\n",
            "line 1: solution {'from': 'dual'}: give it a 'name'",
        ),
        (
            "solutions: [dual]\nparameters: {alpha: .nan}\n",
            "line 2: parameters.alpha: expected number, got '.nan'",
        ),
        ("solutions: [gradnorm]\nparameters: {alpha: 1e999}\n", "line 2: '1e999' is not a finite number"),
        (
            "solutions: [{from: dual, name: x, width: -.inf}]\n",
            "line 1: solution 'x': width: expected number, got '-.inf'",
        ),
        (
            "solutions: [dual]\nparameters: {epochs: 1000000000}\n",
            "line 2: parameters.epochs: expected less than or equal to 1000000, got 1000000000",
        ),
        (f"solutions: [dual]\nparameters: {{epochs: {'9' * 5000}}}\n", "line 2: '999"),
        (
            f"solutions: [dual]\nseeds: [{'9' * 90}]\n",
            "line 2: seeds[0]: expected less than 4294967296, got 9999",
        ),
        (
            f"solutions: [dual]\nseeds: {list(range(10_001))}\n",
            "line 2: seeds: expected at most 1000 items",
        ),
        (f"solutions: [dual]\nseeds: {[0] * 10_001}\n", "line 2: seeds: expected at most 1000 items"),
        (
            "solutions: [gradnorm]\ngrid:\n"
            + f"  alpha: {[i / 1000 for i in range(1000)]}\n"
            + f"  width: {[i / 1000 for i in range(1, 1001)]}\n"
            + f"  weights: {[[i / 1000, 1.0] for i in range(1000)]}\n",
            "line 2: these are 1,000,000 combinations; give fewer values",  # of the solution's own fields
        ),
        (
            f"solutions: [{{from: gradnorm, grid: {{alpha: {list(range(1001))}}}}}]\n",
            "line 1: solutions[0].grid.alpha: expected at most 1000 items",
        ),
        (
            f"search: {{solution: gradnorm, space: {{width: {[i / 100 for i in range(1, 101)]}, "
            f"weights: {[[i / 100, 1.0] for i in range(100)]}}}}}\n",
            "line 1: these are 10,000 combinations",
        ),
        (
            "search: {solution: gradnorm, space: {alpha: {low: 0.0, high: 1.0, step: 1.0e-320}}}\n",
            "line 1: search.space.alpha: from 0.0 to 1.0 is no multiple of its 'step'",
        ),
        (
            "search: {solution: {name: ../x, from: gradnorm}, space: {alpha: [1]}}\n",
            "solution '../x': take letters",
        ),
        (
            "search: {solution: gradnorm, space: {alpha: [1]}, trials: 1000000000}\n",
            "line 1: search.trials: expected less than or equal to 1000000",
        ),
        (
            f"solutions: [{', '.join(f'{{name: x{i}, from: dual}}' for i in range(11))}]\n"
            f"seeds: {list(range(1000))}\n",
            "line 1: the study has more than 10,000 runs; give fewer",
        ),
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
        (
            b"# " + b"x" * MAX_BYTES,
            "demo.yaml: is too large (4,194,306 bytes); at most 4,194,304 bytes are read",
        ),
        (
            "solutions: [dual]".encode("utf-16"),
            "demo.yaml, line 1: is not UTF-8 text (invalid start byte); save it",
        ),
        (b"solutions: [dual]\nname: \xff\n", "demo.yaml, line 2: is not UTF-8 text"),
    ],
)
def test_a_study_file_that_is_no_text_is_one_line(project, capsys, content, expected):
    (project / "notebooks/demo.yaml").write_bytes(content)
    assert main(["study", "notebooks/demo.yaml"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and expected in line


def test_a_folder_and_a_pipe_are_no_study_files(project, capsys):
    assert main(["study", "notebooks"]) == 2
    assert (
        capsys.readouterr().err
        == "gradlib: notebooks: is not a regular file (drwxr-xr-x); replace it by a file\n"
    )
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.yaml")
        assert main(["study", "pipe.yaml"]) == 2  # nobody writes there: opened, it would wait for ever
        assert capsys.readouterr().err.startswith("gradlib: pipe.yaml: is not a regular file (prw")


def test_an_alias_is_fine(project):
    text = "solutions: [&one gradnorm, {name: late, from: *one, branch: p4}]\n"
    (project / "notebooks/demo.yaml").write_text(text)
    assert [job.solution for job in read_spec("notebooks/demo.yaml").runs] == ["gradnorm", "late"]
