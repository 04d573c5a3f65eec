"""A run's network comes back from its folder; nothing in its files is run, and each error is one line."""

import json
import os
import pickle

import pytest
import torch

from gradlib.__main__ import main
from gradlib.config import TASKS
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.runs.read import load_model


class Hostile:
    """Its pickle asks for a file to be made."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    config = {
        "solution": {"name": "x", "branch": "p1"},
        "size": "n",
        "data": "phantom",
        "classes": list("abcd"),
        "views": list("abc"),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(MultiTaskYOLO("n", 4, 3, TASKS, "p1").state_dict(), tmp_path / "model.pt")
    return tmp_path, config


def refused(run, capsys) -> str:
    assert main(["export", str(run), str(run / "out.pt")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and not (run / "out.pt").exists()
    return captured.err


def test_a_run_is_exported(run, capsys):
    assert main(["export", str(run[0]), str(run[0] / "out.pt")]) == 0


@pytest.mark.parametrize("protocol", [0, 2, 4, "torch", "legacy"])
def test_nothing_of_a_model_is_run(protocol, run, capsys):
    folder, mark = run[0], run[0] / "canary"
    if protocol in ("torch", "legacy"):
        torch.save(
            {"a": Hostile(mark)}, folder / "model.pt", _use_new_zipfile_serialization=protocol == "torch"
        )
    else:
        (folder / "model.pt").write_bytes(pickle.dumps(Hostile(mark), protocol))
    assert "model.pt: " in refused(folder, capsys)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"classes": list("abc")}, ", got ["),
        ({"views": [str(i) for i in range(2000)]}, "expected [2000"),
        ({"size": "s"}, ", got ["),
        ({"size": "../n"}, "config.json: describes no network ("),
        ({"size": 3}, "config.json: size: expected string, got 3"),
        ({"size": None}, "config.json: size: expected string, got None"),
        ({"classes": 10**9}, "config.json: classes: expected list, got 1000000000"),
        ({"solution": {"name": "x", "branch": "p1", "width": 2.0}}, ", got ["),
        (
            {"solution": {"name": "x", "branch": "p1", "width": 1e6}},
            "width: expected less than or equal to 4",
        ),
        ({"solution": {"name": "x", "branch": "p1", "width": 1e300}}, "config.json: "),
        (
            {"solution": {"name": "x", "branch": "p1", "surprise": 1}},
            "config.json: describes no network (solution 'x': unk",
        ),
        ({"solution": {"name": "x", "branch": "random"}}, "config.json: describes no network ("),
    ],
)
def test_a_config_of_another_network_is_one_line(changed, expected, run, capsys):
    folder, config = run
    (folder / "config.json").write_text(json.dumps({**config, **changed}))
    assert expected in refused(folder, capsys)


@pytest.mark.parametrize("name", ["size", "classes", "views"])
def test_a_config_that_lacks_something_is_one_line(name, run, capsys):
    folder, config = run
    (folder / "config.json").write_text(
        json.dumps({key: value for key, value in config.items() if key != name})
    )
    expected = "lacks 'size'" if name == "size" else f"{name}: missing"
    assert f"config.json: {expected}" in refused(folder, capsys)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda state: state | {"../../x": torch.zeros(1)},
            "'../../x': expected no such tensor, got [1] of floats",
        ),
        (
            lambda state: state | {"\x1b[2J": torch.zeros(1)},
            "x1b[2J': expected no such tensor, got [1] of floats",
        ),
        (lambda state: dict(list(state.items())[1:]), "of floats, got no such tensor"),
        (
            lambda state: {n: t.long() for n, t in state.items()},
            "of floats, got [16, 3, 6, 6] of integers",
        ),
        (
            lambda state: {n: t + float("nan") if t.is_floating_point() else t for n, t in state.items()},
            "not finite",
        ),
        (lambda state: list(state), "holds no weights by name"),
        (lambda state: {1: 2}, "1 is no tensor"),
        (lambda state: {}, "of floats, got no such tensor"),
    ],
)
def test_weights_of_another_network_are_one_line(change, expected, run, capsys):
    folder, _ = run
    torch.save(change(torch.load(folder / "model.pt")), folder / "model.pt")
    line = refused(folder, capsys)
    assert expected in line and line[:-1].isprintable()


@pytest.mark.parametrize("given", [{"width": 0.5}, {"width": 1.0}, {}])  # runs made earlier do not say it
def test_the_network_of_a_run_comes_back_in_its_width(given, tmp_path):
    model = MultiTaskYOLO("n", 4, 3, TASKS, "p1", given.get("width", 1.0))
    config = {"solution": {"name": "x", "branch": "p1", **given}, "size": "n"}
    config |= {"data": "phantom", "classes": list("abcd"), "views": list("abc")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), tmp_path / "model.pt")
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())
