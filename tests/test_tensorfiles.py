"""Weights of a stranger: nothing of a file is run, and none is given more memory than it has bytes."""

import io
import json
import os
import pickle
import zipfile

import pytest
import torch

from gradlib.__main__ import main
from gradlib.config import TASKS
from gradlib.model import checkpoints, tensor_files
from gradlib.model.yolo import MultiTaskYOLO


class Hostile:
    """Its pickle asks for a file to be made."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def number(value: int) -> bytes:
    """A whole number in pickle's language."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def crafted(
    path, held=16, claimed=4, shape=(4,), stride=(1,), offset=0, kind="FloatStorage", pack=zipfile.ZIP_STORED
):
    """A file with the tensor `a`: its storage holds so many bytes and claims so many numbers."""
    sizes = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, stride))
    content = (
        b"\x80\x02}(X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n"
    )
    content += (
        kind.encode() + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + number(claimed) + b"tQ" + number(offset)
    )
    content += b"".join(sizes) + b"\x89ccollections\nOrderedDict\n)RtRu."
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(held // 4)}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w", pack) as changed:
        for name in whole.namelist():
            changed.writestr(name, content if name.endswith("data.pkl") else whole.read(name))
    return path


def test_what_is_whole_is_read(tmp_path):
    found = tensor_files.load(crafted(tmp_path / "a.pt"))
    assert tensor_files.checked(tmp_path / "a.pt", found)["a"].tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"claimed": 10**6, "shape": (10**6,)}, "cannot be read"),  # numbers from beyond the file's
        ({"claimed": 10**12, "shape": (10**12,)}, "cannot be read"),
        ({"claimed": 2**62, "shape": (2**62,)}, "cannot be read"),
        ({"claimed": -4}, "cannot be read"),
        ({"shape": (5,)}, "cannot be read"),
        ({"shape": (-4,)}, "cannot be read"),
        ({"stride": (10**9,)}, "cannot be read"),
        ({"offset": 10**9}, "cannot be read"),
        ({"offset": -1}, "cannot be read"),
        (
            {"shape": (10**5, 10**5), "stride": (0, 0)},
            "are more than the ",
        ),  # one number that stands for many
        ({"kind": "ComplexFloatStorage", "claimed": 2, "shape": (2,)}, "a is a tensor of another kind"),
        ({"kind": "BoolStorage", "claimed": 16, "shape": (16,)}, "a is a tensor of another kind"),
        ({"held": 2**20, "claimed": 2**18, "pack": zipfile.ZIP_DEFLATED}, "its entries are compressed"),
        ({"kind": "FloatStorages"}, "a.pt: "),
    ],
)
def test_a_tensor_is_no_larger_than_its_file(asked, expected, tmp_path):
    path = crafted(tmp_path / "a.pt", **asked)
    with pytest.raises(ValueError, match=r"a\.pt: ") as caught:
        tensor_files.checked(path, tensor_files.load(path))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor([1.0, float("nan")]), "a has values that are not finite"),
        (torch.tensor([1.0, float("inf")]), "a has values that are not finite"),
        (lambda: torch.eye(2).to_sparse(), "a is a tensor of another kind (torch.sparse_coo, torch.float32)"),
        (
            lambda: torch.eye(2).to_sparse_csr(),
            "a is a tensor of another kind (torch.sparse_csr, torch.float32)",
        ),
        (torch.zeros(2, device="meta"), "a is a tensor of another kind (meta)"),
        (
            lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
            "a is a tensor of another kind",
        ),
        (
            torch.zeros(2, dtype=torch.complex64),
            "a is a tensor of another kind (torch.strided, torch.complex64)",
        ),
        (torch.zeros(2, dtype=torch.uint8), "a is a tensor of another kind"),
        ([1.0], "a is no tensor"),
        ("text", "a is no tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of kinds that PyTorch is about to change
def test_weights_are_dense_finite_numbers(tensor, expected, tmp_path):
    torch.save({"a": tensor() if callable(tensor) else tensor}, tmp_path / "a.pt")
    with pytest.raises(ValueError) as caught:
        tensor_files.checked(tmp_path / "a.pt", tensor_files.load(tmp_path / "a.pt"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: {expected}")


def test_one_tensor_does_not_stand_for_many(tmp_path):
    tensor = torch.zeros(1000)
    torch.save({str(name): tensor for name in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="are more than the"):
        tensor_files.checked(tmp_path / "a.pt", tensor_files.load(tmp_path / "a.pt"))


def network(**modules) -> tensor_files.Inert:
    made = tensor_files.Inert()
    made.__dict__ |= {"_parameters": {}, "_buffers": {}, "_modules": modules}
    return made


def test_modules_that_repeat_each_other_are_not_counted_out():
    inner = network()
    for _ in range(60):  # 2 ** 60 paths
        inner = network(a=inner, b=inner)
    with pytest.raises(ValueError, match="too many modules"):
        checkpoints._tensors(inner)


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run."""
    config = {
        "solution": {"name": "x", "branch": "p1"},
        "size": "n",
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
        ({"classes": list("abc")}, "and config.json asks for ["),
        ({"views": [str(i) for i in range(2000)]}, "and config.json asks for [2000"),
        ({"size": "s"}, "and config.json asks for ["),
        ({"size": "../n"}, "config.json: asks for no network"),
        ({"size": 3}, "config.json: size is 3, which is no str"),
        ({"size": None}, "config.json: size is None, which is no str"),
        ({"classes": 10**9}, "config.json: classes is 1000000000, which is no list"),
        ({"solution": {"name": "x", "branch": "p1", "width": 1e6}}, "and config.json asks for ["),
        ({"solution": {"name": "x", "branch": "p1", "width": 1e300}}, "config.json: "),
        (
            {"solution": {"name": "x", "branch": "p1", "surprise": 1}},
            "config.json: asks for no network (solution 'x': unk",
        ),
        ({"solution": {"name": "x", "branch": "random"}}, "config.json: asks for no network"),
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
    assert f"config.json: lacks '{name}'" in refused(folder, capsys)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda state: state | {"../../x": torch.zeros(1)},
            "../../x is [1] of floats, and config.json asks for not there",
        ),
        (lambda state: state | {"\x1b[2J": torch.zeros(1)}, "\ufffd[2J is [1] of floats"),
        (lambda state: dict(list(state.items())[1:]), "is not there, and config.json asks for ["),
        (
            lambda state: {n: t.long() for n, t in state.items()},
            "of whole numbers, and config.json asks for [",
        ),
        (
            lambda state: {n: t + float("nan") if t.is_floating_point() else t for n, t in state.items()},
            "not finite",
        ),
        (lambda state: list(state), "holds no weights by name"),
        (lambda state: {1: 2}, "1 is no tensor"),
        (lambda state: {}, "is not there, and config.json asks for"),
    ],
)
def test_weights_of_another_network_are_one_line(change, expected, run, capsys):
    folder, _ = run
    torch.save(change(torch.load(folder / "model.pt")), folder / "model.pt")
    line = refused(folder, capsys)
    assert expected in line and line[:-1].isprintable()


def test_a_checkpoint_of_whole_numbers_is_none(tmp_path):
    detector = MultiTaskYOLO("n", 4, 0, ("detection",), "neck")
    torch.save({n: t.long() for n, t in checkpoints.export(detector).items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no YOLOv5 detector"):
        checkpoints.start_from(detector, tmp_path / "a.pt")


def test_a_checkpoint_that_is_no_detector_at_all(tmp_path):
    torch.save({"model.24.m.0.bias": torch.tensor(3.0)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no YOLOv5 detector"):
        checkpoints.start_from(MultiTaskYOLO("n", 4, 0, ("detection",), "neck"), tmp_path / "a.pt")
