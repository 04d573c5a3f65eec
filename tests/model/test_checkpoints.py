import argparse
import io
import json
import os
import pickle
import sys
import types
import zipfile
from datetime import datetime, timedelta
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch
from torch import nn

from gradlib.config import BRANCHES, TASKS
from gradlib.model import checkpoints
from gradlib.model.yolo import MultiTaskYOLO, decode


def detector(size="n", classes=4, seed=0):
    torch.manual_seed(seed)
    return MultiTaskYOLO(size, classes, 0, ("detection",), "neck")


@pytest.fixture
def foreign(monkeypatch):
    """Turns a state dict into an object of classes that are gone once it is saved, as YOLOv5's are."""
    package, module = types.ModuleType("models"), types.ModuleType("models.yolo")
    module.DetectionModel = type("DetectionModel", (nn.Module,), {"__module__": "models.yolo"})
    monkeypatch.setitem(sys.modules, "models", package)
    monkeypatch.setitem(sys.modules, "models.yolo", module)

    def build(tensors):
        root = module.DetectionModel()
        root.yaml, root.stride = {"nc": 4, "anchors": [[10, 13]]}, torch.tensor([8.0, 16.0, 32.0])
        for name, tensor in tensors.items():
            *parents, leaf = name.split(".")
            at = root
            for part in parents:
                if part not in at._modules:
                    at.add_module(part, module.DetectionModel())
                at = at._modules[part]
            if leaf in ("weight", "bias"):
                at.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
            else:
                at.register_buffer(leaf, tensor)
        return root

    def save(path, content):
        torch.save(content, path)
        monkeypatch.undo()  # whoever reads has no such module
        return path

    return types.SimpleNamespace(build=build, save=save)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name])


def test_a_pickled_network_is_read_without_its_code(foreign, tmp_path):
    tensors = checkpoints.export(detector())
    content = {"epoch": -1, "model": foreign.build(tensors), "ema": None, "date": "2022-11-22"}
    path = foreign.save(tmp_path / "best.pt", content)
    assert "models.yolo" not in sys.modules
    assert_same(checkpoints.read_checkpoint(path), tensors)


OPTIONS = {
    "weights": Path("yolov5s.pt"),
    "save_dir": PureWindowsPath("runs/train/exp"),
    "started": datetime(2026, 1, 2),
    "hyp": argparse.Namespace(lr0=0.01, where=Path("hyp.yaml")),
    "plots": types.SimpleNamespace(on=True),
    "seconds": timedelta(3),
}


def test_what_yolov5s_own_training_saves_is_read(foreign, tmp_path):
    tensors = checkpoints.export(detector())
    content = {"epoch": 3, "best_fitness": np.float64(0.5), "fitness": np.array([[0.5]]), "ema": None}
    content |= {"model": foreign.build(tensors), "updates": 7, "opt": OPTIONS, "date": "2026-01-02T03:04:05"}
    content |= {"optimizer": torch.optim.SGD([torch.zeros(3)], lr=0.1).state_dict(), "git": {"remote": None}}
    path = foreign.save(tmp_path / "best.pt", content)
    assert_same(checkpoints.read_checkpoint(path), tensors)


def test_averaged_weights_come_before_the_last_and_half_precision_is_widened(foreign, tmp_path):
    last, averaged = (checkpoints.export(detector(seed=seed)) for seed in (0, 1))
    content = {
        "model": foreign.build(last),
        "ema": foreign.build(averaged).half(),
        "best_fitness": np.array([0.5]),
        "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(2))], 0.1).state_dict(),
    }
    found = checkpoints.read_checkpoint(foreign.save(tmp_path / "last.pt", content))
    assert all(t.dtype == torch.float32 for t in found.values() if t.is_floating_point())
    assert_same(found, {n: t.half().float() if t.is_floating_point() else t for n, t in averaged.items()})


@pytest.mark.parametrize("branch", BRANCHES)
def test_every_path_starts_from_the_checkpoint(branch, tmp_path):
    given = detector(classes=4)
    torch.save(checkpoints.export(given), tmp_path / "start.pt")
    torch.manual_seed(7)
    model = MultiTaskYOLO("n", 4, 3, TASKS, branch)
    head = {name: t.clone() for name, t in model.paths["classification"]["head"].state_dict().items()}
    assert checkpoints.start_from(model, tmp_path / "start.pt") == []
    assert_same(checkpoints.export(model), checkpoints.export(given))
    assert_same(dict(model.paths["classification"]["head"].state_dict()), head)
    stages = {**model.shared, **model.paths["classification"]}
    for name, stage in given.paths["detection"].items():
        if name != "head":
            assert_same(stages[name].state_dict(), stage.state_dict())


def test_rows_of_other_classes_are_left_out_and_listed(tmp_path):
    given, model = detector(classes=80), MultiTaskYOLO("n", 4, 3, TASKS, "neck")
    before = [conv.weight.detach().clone() for conv in model.paths["detection"]["head"]["24"].m]
    torch.save(checkpoints.export(given), tmp_path / "coco.pt")
    left_out = checkpoints.start_from(model, tmp_path / "coco.pt")
    assert left_out == [f"model.24.m.{i}.{kind}" for i in range(3) for kind in ("bias", "weight")]
    heads = (m.paths["detection"]["head"]["24"].m for m in (model, given))
    for own, theirs, fresh in zip(*heads, before, strict=True):
        own, theirs, fresh = (w.reshape(3, -1, w.shape[1]) for w in (own.weight, theirs.weight, fresh))
        torch.testing.assert_close(own[:, :5], theirs[:, :5])
        torch.testing.assert_close(own[:, 5:], fresh[:, 5:])


def test_anchors_come_along_in_pixels(tmp_path):
    given, model = detector(), detector(seed=1)
    given.anchors.mul_(1.5)
    exported = checkpoints.export(given)
    torch.testing.assert_close(exported["model.24.anchors"][2, 2], torch.tensor([373.0, 326.0]) * 1.5 / 32)
    torch.save(exported, tmp_path / "fitted.pt")
    checkpoints.start_from(model, tmp_path / "fitted.pt")
    assert_same(model.state_dict(), given.state_dict())


def test_the_view_specialist_lists_what_it_has_no_use_for(tmp_path):
    torch.save(checkpoints.export(detector()), tmp_path / "start.pt")
    left_out = checkpoints.start_from(
        MultiTaskYOLO("n", 0, 3, ("classification",), "neck"), tmp_path / "start.pt"
    )
    assert {int(name.split(".")[1]) for name in left_out} == {18, 20, 21, 23, 24}


class Hostile:
    """Its pickle asks for a command to be run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


PLACES = ["alone", "beside the network", "within the network", "among the options", "in a namespace"]


@pytest.mark.parametrize("where", PLACES)
def test_a_hostile_pickle_is_refused_and_nothing_run(where, foreign, tmp_path):
    mark = tmp_path / "ran"
    network = foreign.build({"model.0.conv.weight": torch.zeros(1)})
    content = {
        "alone": Hostile(mark),
        "beside the network": {"model": network, "opt": Hostile(mark)},
        "within the network": {"model": network},
        "among the options": {"model": network, "opt": {**OPTIONS, "project": Hostile(mark)}},
        "in a namespace": {"model": network, "opt": argparse.Namespace(project=Hostile(mark))},
    }[where]
    if where == "within the network":
        network.hook = Hostile(mark)
    path = foreign.save(tmp_path / "hostile.pt", content)
    with pytest.raises(ValueError, match=r"hostile\.pt: holds '(posix|nt)\.system'; only tensors"):
        checkpoints.read_checkpoint(path)
    assert not mark.exists()
    pickle.loads(pickle.dumps(Hostile(mark)))  # what would have happened
    assert mark.exists()


def test_a_pickle_that_hides_what_it_calls_is_refused(tmp_path):
    """STACK_GLOBAL takes the name from the stack, where a look at the file does not show it."""
    mark = tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save({"model": 1}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "hidden.pt", "w") as changed:
        for name in whole.namelist():
            hidden = pickle.dumps(Hostile(mark), protocol=4)
            changed.writestr(name, hidden if name.endswith("data.pkl") else whole.read(name))
    with pytest.raises(ValueError, match=r"hidden\.pt: is no PyTorch checkpoint, or damaged"):
        checkpoints.read_checkpoint(tmp_path / "hidden.pt")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("models.common.Conv", "torch.nn.modules.conv.Conv2d", "pathlib.Path", "pathlib.Path.unlink"),
        *("datetime.datetime", "argparse.Namespace", "types.SimpleNamespace", "numpy.core.multiarray.scalar"),
    ],
)
def test_calls_to_allowed_names_do_nothing(name, tmp_path):
    module, _, attribute = name.rpartition(".")
    call = f"c{module}\n{attribute}\n".encode() + b"(X\x05\x00\x00\x00shellt\x52."  # Conv("shell")
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(tmp_path / "call.pt", "w") as changed:
        for entry in whole.namelist():
            changed.writestr(entry, b"\x80\x02" + call if entry.endswith("data.pkl") else whole.read(entry))
    with pytest.raises(ValueError, match=r"call\.pt: holds no network"):
        checkpoints.read_checkpoint(tmp_path / "call.pt")


def test_a_truncated_file(tmp_path):
    torch.save(checkpoints.export(detector()), tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.pt: is cut short; download it again"):
        checkpoints.read_checkpoint(tmp_path / "cut.pt")


def test_a_text_file(tmp_path):
    (tmp_path / "notes.pt").write_text("<html>Not Found</html>")
    with pytest.raises(ValueError, match=r"notes\.pt: is no PyTorch checkpoint \(starts with b'<html>Not"):
        checkpoints.read_checkpoint(tmp_path / "notes.pt")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt: not found; give the path of a YOLOv5"):
        checkpoints.read_checkpoint(tmp_path / "nowhere.pt")


def test_another_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match=r"archive\.pt: is no PyTorch checkpoint, or damaged"):
        checkpoints.read_checkpoint(tmp_path / "archive.pt")


@pytest.mark.parametrize(
    "content",
    [
        *({"model": None, "ema": None}, {"model": 1, "ema": torch.zeros(2)}, {}, [1, 2], {"a": 1}),
        torch.zeros(2),
    ],
)
def test_a_file_without_a_network(content, tmp_path):
    torch.save(content, tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"empty\.pt: holds no network"):
        checkpoints.read_checkpoint(tmp_path / "empty.pt")


@pytest.mark.parametrize("attribute", ["_modules", "_parameters"])
def test_a_module_that_is_not_built_like_one(attribute, foreign, tmp_path):
    network = foreign.build({})
    network.__dict__[attribute] = ["no", "dictionary"]
    with pytest.raises(ValueError, match=r"odd\.pt: holds no network"):
        checkpoints.read_checkpoint(foreign.save(tmp_path / "odd.pt", {"model": network}))


def test_a_module_within_itself(foreign, tmp_path):
    network = foreign.build({"a.weight": torch.zeros(1)})
    network._modules["a"]._modules["b"] = network
    with pytest.raises(ValueError, match=r"loop\.pt: holds no network"):
        checkpoints.read_checkpoint(foreign.save(tmp_path / "loop.pt", {"model": network}))


def test_another_size(tmp_path):
    torch.save(checkpoints.export(detector("s")), tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"small\.pt: holds a YOLOv5s, and the run's size is 'n'; set size"):
        checkpoints.start_from(detector("n"), tmp_path / "small.pt")


def test_another_width(tmp_path):
    torch.save(checkpoints.export(detector()), tmp_path / "start.pt")
    with pytest.raises(
        ValueError, match=r"start\.pt: a checkpoint has YOLOv5's own channels, .* 0\.77 times"
    ):
        checkpoints.start_from(MultiTaskYOLO("n", 4, 3, TASKS, "input", 0.77), tmp_path / "start.pt")


def test_another_network(tmp_path):
    tensors = checkpoints.export(detector())
    del tensors["model.23.cv3.conv.weight"]
    torch.save(tensors, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: holds no YOLOv5 detector of release 6 or 7"):
        checkpoints.start_from(detector(), tmp_path / "other.pt")


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    torch.save(checkpoints.export(detector("s")), tmp_path / "small.pt")
    model = detector()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError):
        checkpoints.start_from(model, tmp_path / "small.pt")
    assert_same(model.state_dict(), before)


def test_only_a_detector_is_exported():
    with pytest.raises(ValueError, match="does not detect"):
        checkpoints.export(MultiTaskYOLO("n", 0, 3, ("classification",), "neck"))


def test_the_official_checkpoint_gives_the_official_outputs():
    """Raw outputs of the published YOLOv5n on a computed image, as YOLOv5's own code gives them."""
    if not (os.environ.get("GRADLIB_CHECKPOINT") and os.environ.get("GRADLIB_REFERENCE")):
        pytest.skip("GRADLIB_CHECKPOINT and GRADLIB_REFERENCE name no files")
    with open(os.environ["GRADLIB_REFERENCE"], encoding="utf-8") as file:
        reference = json.load(file)
    model = detector(classes=80).eval()
    path = os.environ["GRADLIB_CHECKPOINT"]
    assert checkpoints.start_from(model, path) == []
    assert checkpoints.read_checkpoint(path).keys() == checkpoints.export(model).keys()
    assert_same(checkpoints.export(model), checkpoints.read_checkpoint(path))
    c, i, j = torch.meshgrid(torch.arange(3), torch.arange(96), torch.arange(128), indexing="ij")
    with torch.no_grad():
        raw = model(((31 * i + 17 * j + 7 * c) % 255 / 255)[None])["detection"]
    assert [list(level.shape) for level in raw] == reference["raw_shapes"]
    for sample in reference["raw_samples"]:
        found = raw[sample["level"]][tuple(sample["index"])].item()
        assert found == pytest.approx(sample["value"], abs=1e-4)
    sums = [level.double().sum().item() for level in raw]
    assert sums == pytest.approx(reference["raw_sum"], rel=1e-4)
    means = [level.double().abs().mean().item() for level in raw]
    assert means == pytest.approx(reference["raw_abs_mean"], rel=1e-4)
    decoded = decode(raw, model.anchors)
    assert list(decoded.shape) == reference["decoded_shape"]
    assert decoded[..., :4].double().sum().item() == pytest.approx(reference["decoded_sum_xywh"], rel=1e-4)
    for row, name in ((0, "decoded_first_row"), (-1, "decoded_last_row")):
        assert decoded[0, row, :6].tolist() == pytest.approx(reference[name], rel=1e-4, abs=1e-4)
