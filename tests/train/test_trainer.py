"""A training that is stopped and goes on ends as one that was not."""

import copy
import re
import signal
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from gradlib.config import Training, find_solution
from gradlib.train.devices import fabric_for
from gradlib.train.trainer import Stopped, _check_part


@pytest.fixture(scope="module")
def undisturbed(trainer_of):
    return trainer_of().run()


@pytest.mark.parametrize("at", [1, 2, 3, 5])  # amid the first epoch, at its end, amid the second, the third
def test_a_training_goes_on_where_it_was_stopped(equal, trainer_of, undisturbed, at):
    trainer = trainer_of()
    with pytest.raises(Stopped, match=f"stopped after step {at} of 6, in epoch .* run this again"):
        for _ in trainer.iter_steps():
            if trainer.step == at:
                trainer.stop()
    assert trainer.step == at
    torch.rand(7)  # a reader who tries something meanwhile
    assert equal(trainer.run(), undisturbed)


def test_a_training_that_is_stopped_at_its_end_has_ended(equal, trainer_of, undisturbed):
    trainer = trainer_of()
    for _ in trainer.iter_steps():
        if len(trainer.history.epochs) == 3:
            trainer.stop()
    assert equal(trainer.result(), undisturbed)


@pytest.mark.filterwarnings("ignore")  # of tracing
def test_a_compiled_step_is_the_same(trainer_of, monkeypatch):
    def first(trainer):
        next(trainer.iter_steps())
        return trainer.history.steps[0]

    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))  # no C++ compiler
    assert first(trainer_of("dual", compile=True)) == pytest.approx(first(trainer_of("dual")), rel=1e-4)


@pytest.mark.parametrize("balancer", ["gradnorm", "PCGrad"])
def test_a_new_process_goes_on_from_what_was_kept(equal, trainer_of, tmp_path, balancer):
    spec = {"name": balancer, "balancer": balancer}

    def keep(trainer):
        torch.save(trainer.state_dict(), tmp_path / f"{len(trainer.history.epochs)}.pt")

    whole = trainer_of(spec, after_epoch=keep).run()
    for epochs in (1, 2, 3):
        torch.rand(epochs)  # another process has drawn other numbers
        trainer = trainer_of(spec)
        trainer.load_state_dict(torch.load(tmp_path / f"{epochs}.pt", weights_only=True))
        assert trainer.step == 2 * epochs
        assert equal(trainer.run(), whole)


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # NashMTL
@pytest.mark.parametrize("balancer", ["DWA", "ExcessMTL", "FAMO", "GradVac", "IMTLL", "NashMTL", "PCD", "UW"])
def test_a_method_with_a_memory_says_that_it_begins_it_anew(trainer_of, tmp_path, balancer):
    spec, states = {"name": balancer, "balancer": balancer}, []
    trainer_of(spec, after_epoch=lambda trainer: states.append(copy.deepcopy(trainer.state_dict()))).run()
    torch.save(states[0], tmp_path / "state.pt")
    trainer = trainer_of(spec)
    with pytest.warns(UserWarning, match=f"{balancer} begins its memory of earlier steps anew") as warned:
        trainer.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert len(warned) == 1 and trainer.step == 2
    assert len(trainer.run()[1].steps) == 6


def test_a_state_of_another_training_is_named(trainer_of):
    state = trainer_of({"name": "a", "balancer": "UW"}).state_dict()
    for asked, given in (
        ({"name": "a", "balancer": "gradnorm"}, state),
        (None, {**state, "history": {"a": 1}}),
    ):
        with pytest.raises(ValueError, match=r"another training or version of gradlib .* begins anew"):
            trainer_of(*filter(None, [asked])).load_state_dict(given)


def test_within_an_epoch_there_is_no_state(trainer_of):
    trainer = trainer_of()
    next(trainer.iter_steps())
    with pytest.raises(RuntimeError, match="within an epoch"):
        trainer.state_dict()


def test_an_interrupt_waits_for_the_end_of_the_step(equal, trainer_of, undisturbed):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes ignore it
    try:
        trainer = trainer_of()
        train = trainer._step

        def interrupted(*arguments):
            if trainer.step == 2:
                signal.raise_signal(signal.SIGINT)
            train(*arguments)

        trainer._step = interrupted
        with pytest.raises(Stopped, match="after step 3 of 6"):
            trainer.run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert equal(trainer.run(), undisturbed)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore:GradNorm. loss or gradient of task 1 is not finite")
def test_a_training_that_failed_does_not_pass_for_one_that_ended(trainer_of, monkeypatch):
    trainer = trainer_of()
    monkeypatch.setattr(
        "gradlib.model.losses.classification_loss", lambda logits, *_: logits.sum() * float("nan")
    )
    with pytest.raises(FloatingPointError) as raised:
        trainer.run()
    said = str(raised.value)
    assert said.startswith("step 1 of 6, epoch 1: the classification loss is nan; lower learning_rate, or ")
    assert len(set(re.findall(r"p\d+-v-0\.png", said))) == 8 and said.endswith("good state is the start")
    with pytest.raises(RuntimeError, match="ended in an error: make a new one"):
        trainer.run()


def test_a_gradient_that_is_not_finite_ends_a_training_before_it_is_used(trainer_of):
    def spoil(trainer):
        if len(trainer.history.epochs) == 1:
            weight = next(trainer.model.parameters())
            weight.register_hook(lambda gradient: gradient * float("inf"))

    trainer = trainer_of("baseline", after_epoch=spoil)
    with pytest.raises(FloatingPointError, match=r"step 3 of 6, epoch 2: the gradient's norm is (inf|nan)"):
        trainer.run()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


def test_a_training_pauses_after_every_step_and_epoch(trainer_of):
    seen, told = [], []
    trainer = trainer_of(after_epoch=lambda trainer: told.append(len(trainer.history.epochs)))

    for _ in trainer.iter_steps():
        seen.append((trainer.step, len(trainer.history.epochs)))
    assert seen == [(1, 0), (2, 0), (2, 1), (3, 1), (4, 1), (4, 2), (5, 2), (6, 2), (6, 3)]
    assert told == [1, 2, 3]


def test_the_frames_of_every_probed_batch_are_kept(trainer_of, frames):
    tables = trainer_of().run()[1].tables()
    batches = tables["batches"]
    assert set(batches["step"]) == set(tables["probes"]["step"]) == {0, 2, 4}
    assert (batches.groupby("step")["image"].nunique() == 16).all()  # two batches a probe
    assert set(batches["image"]) <= {frame.name for frame in frames}
    assert trainer_of("dual").run()[1].batches == []  # no probe, no batch to look at


@pytest.mark.parametrize(
    ("solution", "boxes", "view", "batch_size", "expected"),
    [
        ("baseline", 1, -1, 1, "'baseline' learns classification, and no training frame has an image class"),
        ("baseline", 0, 0, 1, "'baseline' learns detection, and no training frame has a box"),
        (
            "detection-only",
            1,
            -1,
            3,
            "batch_size: expected at most 2, the frames of the training part, got 3",
        ),
        ("detection-only", 1, 0, 1, "batch_size: 1 normalises one value a channel at image_size 32; take 2"),
        ("detection-only", 0, -1, 1, "no training frame has a box; take another data set"),
        ("detection-only", 0, 0, 1, "no training frame has a box; take classification-only"),
    ],
)
def test_what_a_training_part_cannot_teach_is_refused(solution, boxes, view, batch_size, expected):
    frames = [SimpleNamespace(boxes=[0] * boxes, view=view)] * 2
    with pytest.raises(ValueError, match=expected) as caught:
        _check_part(find_solution(solution), Training(batch_size=batch_size, image_size=32), frames)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(
    "device", [name for name in ("cuda", "xpu") if not getattr(torch, name).is_available()]
)
def test_a_device_that_is_not_here_is_one_line(device):
    with pytest.raises(ValueError, match=f"device: '{device}' is not here; take 'auto' or 'cpu'"):
        fabric_for(Training(device=device))
