import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import seed_everything

from gradlib.config import SOLUTIONS, Training
from gradlib.data.images import FrameSet
from gradlib.model.boxes import cxcywh_to_xyxy, pairwise_iou
from gradlib.model.losses import assign
from gradlib.model.yolo import ANCHORS, STRIDES, MultiTaskYOLO, decode
from gradlib.train import evaluation
from gradlib.train.devices import fabric_for, precision_of
from gradlib.train.metrics import average_precision
from gradlib.train.optimization import optimizer_for, schedule
from gradlib.train.trainer import Trainer

CLASSES, VIEWS = ("AR", "MR"), ("A4C", "PSAX")


def train(frames, name="gradnorm", **settings):
    seed_everything(0, verbose=False)
    solution = SOLUTIONS[name]
    training = Training(**{"image_size": 64, "epochs": 2, "batch_size": 8, "probe_every": 2, **settings})
    model = MultiTaskYOLO("n", 2, 2, solution.tasks, solution.branch, solution.width)
    data, few = FrameSet(frames, 64), FrameSet(frames[:4], 64)
    model, history = Trainer(model, solution, training, data, few, CLASSES).run()
    return model, history, data, training


@pytest.mark.parametrize("name", [name for name, chosen in SOLUTIONS.items() if not chosen.unresolved_fields])
def test_every_solution_trains_and_is_judged(frames, name):
    model, history, data, training = train(frames, name)
    tables, tasks = history.tables(), SOLUTIONS[name].tasks
    assert len(tables["steps"]) == 4 and len(tables["epochs"]) == 2
    assert {f"loss_{task}" for task in tasks} | {f"weight_{task}" for task in tasks} <= set(tables["steps"])
    shared = len(tasks) > 1 and SOLUTIONS[name].branch != "input"
    assert ("share_detection" in tables["steps"]) == shared
    stages = tables["probes"]["stage"].unique().tolist() if shared else []
    assert stages == {"fusion": ["p1", "p2", "p3"]}.get(name, list(model.shared))
    predictions, losses = evaluation.predict(model, data, training)
    assert len(predictions) == 16 and set(losses) == set(tasks)
    metrics = evaluation.evaluate(predictions, tasks, CLASSES, 0.5)
    assert (metrics["map50"] is None) == ("detection" not in tasks)
    assert (metrics["accuracy"] is None) == ("classification" not in tasks)


def test_the_same_seed_gives_the_same_run(frames):
    first, second, other = (train(frames, seed=seed)[1].tables() for seed in (0, 0, 1))
    for name in ("steps", "probes"):
        assert first[name].equals(second[name])
    assert not first["steps"].equals(other["steps"])


def test_the_network_learns_both_tasks(frames):
    model, _, data, training = train(
        frames, epochs=50, learning_rate=3e-3, augment=False, probe_every=0, ema_decay=0.9
    )
    predictions, _ = evaluation.predict(model, data, training)
    metrics = evaluation.evaluate(predictions, model.tasks, CLASSES, 0.3)
    assert metrics["accuracy"] == 1 and metrics["map50"] > 0.8
    # Boxes come back in the frame's own coordinates, not the letterboxed square's.
    best = [entry["detections"][0] for entry in predictions]
    truth = [entry["boxes"][0] for entry in predictions]
    errors = np.abs(np.array(best)[:, 2:] - np.array(truth)[:, 1:]).max(1)
    assert np.median(errors) < 0.06


def test_learning_rates_warm_up_and_fall_along_a_cosine():
    solution = SOLUTIONS["dual"]
    model = MultiTaskYOLO("n", 2, 2, solution.tasks, solution.branch)
    rates = {"learning_rate": 1e-3, "learning_rate_classification": 5e-4, "learning_rate_final": 1e-4}
    training = Training(epochs=11, **rates)
    optimizer = optimizer_for(model, training)
    assert [g["name"] for g in optimizer.param_groups] == ["detection"] * 2 + ["classification"] * 2
    scheduler = schedule(optimizer, training, steps_per_epoch=10)
    rates = []
    for _ in range(110):
        rates.append([optimizer.param_groups[i]["lr"] for i in (0, 2)])
        optimizer.step()
        scheduler.step()
    rates = np.array(rates)
    assert rates[0] == pytest.approx([1e-3 / 11, 5e-4 / 11])  # the first of ten warm-up steps
    assert rates[10] == pytest.approx([1e-3, 5e-4])
    assert rates[-1] == pytest.approx([1e-4, 1e-4])
    assert (np.diff(rates[10:], axis=0) <= 0).all()
    # Half way along the cosine: the mean of start and end.
    half = 10 + 99 / 2
    assert rates[[math.floor(half), math.ceil(half)]].mean(0) == pytest.approx([5.5e-4, 3e-4])


def test_every_parameter_has_one_learning_rate_and_decay_only_where_it_belongs():
    model = MultiTaskYOLO("n", 2, 2, ("detection", "classification"), "p3")
    groups = optimizer_for(model, Training()).param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


def test_a_batch_is_judged_like_its_images_alone(frames):
    model, _, data, training = train(frames)
    together, _ = evaluation.predict(model, data, training)
    alone, _ = evaluation.predict(model, data, Training(image_size=64, batch_size=1))
    for a, b in zip(together, alone, strict=True):
        assert a["view_scores"] == pytest.approx(b["view_scores"], abs=1e-4)
        rows = (torch.tensor(entry["detections"][:5]) for entry in (a, b))
        assert torch.allclose(*rows, atol=1e-3)


def test_half_precision_trains_nearly_alike_and_quietly(frames, capfd):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    runs = [train(frames, augment=False, device="cpu", precision=p)[1] for p in ("32-true", "bf16-mixed")]
    full, half = (run.tables()["steps"] for run in runs)
    for name in ("loss_detection", "loss_classification", "norm_detection", "norm_classification"):
        assert half[name][0] == pytest.approx(full[name][0], rel=0.05)
        assert half[name][0] != full[name][0]  # it is half precision
    assert "bfloat16" not in capfd.readouterr().err


def test_half_precision_is_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="this processor has no bfloat16; take '32-true'"):
        fabric_for(Training(device="cpu", precision="bf16-mixed"))
    fabric_for(Training(device="cpu"))


def test_automatic_precision_is_bf16_only_where_the_processor_has_it(monkeypatch):
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has, raising=False)
        assert precision_of(Training(precision="auto"), "cpu") == ("bf16-mixed" if has else "32-true")
    assert precision_of(Training(precision="bf16-mixed"), "cpu") == "bf16-mixed"
    assert precision_of(Training(precision="auto"), "mps") == "32-true"


def made_up_outputs(classes, images=6, side=128):
    """Truth, a box a row as `detection_loss` takes it, and raw outputs that see it through much noise."""
    random = torch.Generator().manual_seed(0)
    noise = partial(torch.randn, generator=random)
    place = torch.rand(images * 8, 4, generator=random) * torch.tensor([0.7, 0.7, 0.3, 0.3]) + 0.1
    label = torch.randint(0, classes, (images * 8, 1), generator=random)
    boxes = torch.cat((torch.arange(images).repeat(8)[:, None], label, place), 1)
    anchors, raw = torch.tensor(ANCHORS, dtype=torch.float32), []
    for stride, anchor in zip(STRIDES, anchors, strict=True):
        cells = side // stride
        level = noise(images, 3, cells, cells, 5 + classes) * 1.5 - 4.5
        y, x, learns = assign(boxes, anchor / stride, (cells, cells))
        box, a, near = learns.nonzero(as_tuple=True)
        y, x = y[box, near], x[box, near]
        seen = boxes[box, 2:] * cells + noise(len(box), 4) * 0.3
        offset = (seen[:, :2] - torch.stack((x, y), 1) + 0.5) / 2
        size = (seen[:, 2:].clamp(min=0.1) / (anchor[a] / stride)).sqrt() / 2
        image, found = boxes[box, 0].long(), torch.cat((offset, size), 1).clamp(0.01, 0.99).logit()
        level[image, a, y, x, :4], level[image, a, y, x, 4] = found, noise(len(box)) * 2 - 3
        level[image, a, y, x, 5 + boxes[box, 1].long()] = noise(len(box)) - 1
        raw.append(level)
    return boxes, raw, anchors


def official_boxes(raw, anchors, side):
    """What YOLOv5's own evaluation keeps of each image: every class of a box above 0.001, of these the best
    30,000, greedy suppression by class at 0.6, the best 300."""
    for rows in decode(raw, anchors):
        scores = rows[:, 4:5] * rows[:, 5:]
        box, label = (scores > 0.001).nonzero(as_tuple=True)
        best = scores[box, label].argsort(descending=True, stable=True)[:30_000]
        box, label = box[best], label[best]
        corners, waiting, kept = cxcywh_to_xyxy(rows[box, :4]), torch.arange(len(box)), []
        while len(waiting) and len(kept) < 300:
            first, waiting = waiting[0], waiting[1:]
            kept.append(int(first))
            overlap = pairwise_iou(corners[first][None], corners[waiting])[0]
            waiting = waiting[(overlap <= 0.6) | (label[waiting] != label[first])]
        found = torch.cat((label[:, None], scores[box, label][:, None], rows[box, :4] / side), 1)
        yield found[kept].tolist()


@pytest.mark.parametrize("classes", [4, 80])
def test_average_precision_is_that_of_the_boxes_that_yolov5_keeps(classes):
    boxes, raw, anchors = made_up_outputs(classes)
    ours = evaluation._detections(raw, SimpleNamespace(anchors=anchors), 128)
    values = []
    for found in ([rows.tolist() for rows in ours], list(official_boxes(raw, anchors, 128))):
        entries = [
            {"boxes": boxes[boxes[:, 0] == i, 1:].tolist(), "detections": rows}
            for i, rows in enumerate(found)
        ]
        values.append(average_precision(entries, [str(k) for k in range(classes)]))
    for metric in ("map50", "map50_95"):
        assert values[0][metric] == pytest.approx(values[1][metric], abs=0.005)
    assert values[0]["map50"] > 0.2
