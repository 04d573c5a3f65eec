"""Weights as untrusted input: nothing in a file is run, and none takes more memory than it has bytes."""

import io
import zipfile

import pytest
import torch

from gradlib.model import checkpoints, tensor_files
from gradlib.model.yolo import MultiTaskYOLO


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
    found = tensor_files.load_tensors(crafted(tmp_path / "a.pt"))
    assert tensor_files.check_tensors(tmp_path / "a.pt", found)["a"].tolist() == [0.0] * 4


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
        ({"kind": "ComplexFloatStorage", "claimed": 2, "shape": (2,)}, "'a' is a tensor of another kind"),
        ({"kind": "BoolStorage", "claimed": 16, "shape": (16,)}, "'a' is a tensor of another kind"),
        ({"held": 2**20, "claimed": 2**18, "pack": zipfile.ZIP_DEFLATED}, "its entries are compressed"),
        ({"kind": "FloatStorages"}, "a.pt: "),
    ],
)
def test_a_tensor_is_no_larger_than_its_file(asked, expected, tmp_path):
    path = crafted(tmp_path / "a.pt", **asked)
    with pytest.raises(ValueError, match=r"a\.pt: ") as caught:
        tensor_files.check_tensors(path, tensor_files.load_tensors(path))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor([1.0, float("nan")]), "'a' has values that are not finite"),
        (torch.tensor([1.0, float("inf")]), "'a' has values that are not finite"),
        (
            lambda: torch.eye(2).to_sparse(),
            "'a' is a tensor of another kind (torch.sparse_coo, torch.float32)",
        ),
        (
            lambda: torch.eye(2).to_sparse_csr(),
            "'a' is a tensor of another kind (torch.sparse_csr, torch.float32)",
        ),
        (torch.zeros(2, device="meta"), "'a' is a tensor of another kind (meta)"),
        (
            lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
            "'a' is a tensor of another kind",
        ),
        (
            torch.zeros(2, dtype=torch.complex64),
            "'a' is a tensor of another kind (torch.strided, torch.complex64)",
        ),
        (torch.zeros(2, dtype=torch.uint8), "'a' is a tensor of another kind"),
        ([1.0], "'a' is no tensor"),
        ("text", "'a' is no tensor"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of kinds that PyTorch is about to change
def test_weights_are_dense_finite_numbers(tensor, expected, tmp_path):
    torch.save({"a": tensor() if callable(tensor) else tensor}, tmp_path / "a.pt")
    with pytest.raises(ValueError) as caught:
        tensor_files.check_tensors(tmp_path / "a.pt", tensor_files.load_tensors(tmp_path / "a.pt"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}: {expected}")


def test_one_tensor_does_not_stand_for_many(tmp_path):
    tensor = torch.zeros(1000)
    torch.save({str(name): tensor for name in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="are more than the"):
        tensor_files.check_tensors(tmp_path / "a.pt", tensor_files.load_tensors(tmp_path / "a.pt"))


def network(**modules) -> tensor_files.Inert:
    made = tensor_files.Inert()
    made.__dict__ |= {"_parameters": {}, "_buffers": {}, "_modules": modules}
    return made


def test_modules_that_repeat_each_other_are_not_counted_out():
    inner = network()
    for _ in range(60):  # 2 ** 60 paths
        inner = network(a=inner, b=inner)
    with pytest.raises(ValueError, match="too many modules"):
        checkpoints._state_dict(inner)


def test_a_checkpoint_of_whole_numbers_is_none(tmp_path):
    detector = MultiTaskYOLO("n", 4, 0, ("detection",), "neck")
    torch.save({n: t.long() for n, t in checkpoints.export(detector).items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no YOLOv5 detector"):
        checkpoints.start_from(detector, tmp_path / "a.pt")


def test_a_checkpoint_that_is_no_detector_at_all(tmp_path):
    torch.save({"model.24.m.0.bias": torch.tensor(3.0)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds no YOLOv5 detector"):
        checkpoints.start_from(MultiTaskYOLO("n", 4, 0, ("detection",), "neck"), tmp_path / "a.pt")
