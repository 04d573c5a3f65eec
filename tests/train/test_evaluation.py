import math

import numpy as np
import pytest
import torch
from lightning_fabric import seed_everything

from gradlib.config import SOLUTIONS, Training
from gradlib.data.images import FrameSet
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.train import evaluation
from gradlib.train.devices import fabric_for
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
