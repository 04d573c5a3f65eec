"""A training from its first step to its last: loader, optimizer, schedule, averaged weights, validation.

    trainer = Trainer(model, solution, training, train_set, valid_set, classes)
    model, history = trainer.run()

`run` may be stopped and called again; another process goes on from `state_dict()`.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from gradlib.config import MEASURE_AT, TASKS, Solution, Training
from gradlib.data.images import FrameSet, collate
from gradlib.model.losses import view_weights
from gradlib.model.yolo import STRIDES, MultiTaskYOLO
from gradlib.probe.probe import Probe
from gradlib.train.augmentation import augment
from gradlib.train.devices import fabric_for, prepare
from gradlib.train.evaluation import evaluate, predict
from gradlib.train.metrics import best_confidence
from gradlib.train.optimization import MovingAverage, balancer_for, optimizer_for, schedule
from gradlib.train.step import losses_of, train_step

MAX_GRADIENT_NORM = 10.0  # gradients are clipped to it, as in YOLOv5


class Stopped(Exception):
    """A training was told to end before its last epoch; the message says by whom and why."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this instead of a traceback: nothing went wrong."""
        return [str(self)]


@dataclass
class History:
    """The rows of a training's tables (see `runs`)."""

    steps: list[dict] = field(default_factory=list)
    probes: list[dict] = field(default_factory=list)
    parts: list[dict] = field(default_factory=list)
    affinity: list[dict] = field(default_factory=list)
    pairs: list[dict] = field(default_factory=list)
    batches: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: pd.DataFrame(rows) for name, rows in vars(self).items()}


def _check_part(solution: Solution, training: Training, frames: Sequence) -> None:
    there = {"detection": any(len(frame.boxes) for frame in frames)}
    there["classification"] = any(frame.view >= 0 for frame in frames)
    for task in solution.tasks:
        if not there[task]:
            what = "a box" if task == "detection" else "an image class (`image_class` in data.yaml gives one)"
            other = next((f"{name}-only" for name in TASKS if there[name]), "another data set")
            text = f"solution {solution.name!r} learns {task}, and no training frame has {what}"
            raise ValueError(f"{text}; take {other}")
    if training.batch_size > len(frames):
        text = f"expected at most {len(frames)}, the frames of the training part, got {training.batch_size}"
        raise ValueError(f"batch_size: {text}")
    if training.batch_size == 1 and training.image_size == STRIDES[-1]:
        text = f"normalises one value a channel at image_size {training.image_size}"
        raise ValueError(f"batch_size: 1 {text}; take 2 frames or more, or a larger image_size")


class Trainer:
    """A training that can be stopped after any step and go on as if it had not been.

    after_epoch is called with this trainer. `history` and `step` (steps done, of `steps`) may be read at any
    time. Raises ValueError where the training part has nothing to learn a task from, or is less than a batch.
    """

    def __init__(
        self,
        model: MultiTaskYOLO,
        solution: Solution,
        training: Training,
        train_set: FrameSet,
        valid_set: FrameSet,
        classes: Sequence[str],
        after_epoch: Callable[["Trainer"], None] | None = None,
    ):
        self.solution, self.training, self.classes, self.tasks = solution, training, classes, model.tasks
        self.after_epoch, self.valid_set = after_epoch, valid_set
        _check_part(solution, training, train_set.frames)
        self._fabric = fabric = fabric_for(training)
        # Convolutions run faster on channels-last memory, on CPU as on tensor cores.
        self.model = model = model.to(fabric.device, memory_format=torch.channels_last).train()
        if "classification" in model.tasks:
            views = [frame.view for frame in train_set.frames]
            model.view_weights.copy_(view_weights(views, len(model.view_weights), training.view_balance))
        averaged = MovingAverage(model, training.ema_decay)
        if training.compile:  # one by one: a graph of all would have no cut
            for part in ("forward_shared", "forward_task"):
                setattr(model, part, torch.compile(getattr(model, part)))
        optimizer, self.balancer = optimizer_for(model, training), balancer_for(solution, training)
        self._measure_at = solution.options.get("measure_at", MEASURE_AT)
        self._loader = DataLoader(
            train_set,
            training.batch_size,
            shuffle=True,
            # Batch normalisation needs more than one frame, which a last batch may not have.
            drop_last=len(train_set) > training.batch_size,
            collate_fn=collate,
            generator=torch.Generator().manual_seed(training.seed),
        )
        self.steps = training.epochs * len(self._loader)
        scheduler = schedule(optimizer, training, len(self._loader))
        self._averaged, self._optimizer, self._scheduler = averaged, optimizer, scheduler
        parts = {"model": model, "averaged": averaged, "optimizer": optimizer, "scheduler": scheduler}
        self._stateful = {**parts, "balancer": self.balancer}
        self.history = History()
        self._stop, self._epochs = threading.Event(), self._train()
        self._generators = [torch, torch.cuda] if fabric.device.type == "cuda" else [torch]
        self._random: list[Tensor] = []  # the generators' states while the training rests
        self._probe: Probe | None = None  # while one goes on, which is within an epoch

    @property
    def step(self) -> int:
        return len(self.history.steps)

    def stop(self) -> None:
        """Stop the training after the present step. Also from another thread or a signal handler."""
        self._stop.set()

    def run(self) -> tuple[nn.Module, History]:
        """Train to the end, with a progress bar; returns the averaged (EMA) model in eval mode, and the
        history.

        Raises Stopped after the step in which `stop` was called or the process interrupted (Ctrl-C, the
        notebook's ■); called again, it goes on with the next step. FloatingPointError for a loss that is not
        finite.
        """
        bar = tqdm(total=self.steps, initial=self.step, desc=self.solution.name, unit="step")
        with bar, self._delayed_interrupts():
            for _ in self.iter_steps():
                bar.update(self.step - bar.n)
        return self.result()

    def iter_steps(self) -> Iterator[None]:
        """Train to the end, and yield after every step and every epoch's validation. Raises as `run` does."""
        self._stop.clear()
        with self._own_random_states():
            for _ in self._epochs:
                yield
                epoch = len(self.history.epochs) + 1
                if self._stop.is_set() and epoch <= self.training.epochs:
                    raise Stopped(
                        f"stopped after step {self.step} of {self.steps}, in epoch {epoch} of "
                        f"{self.training.epochs}; run this again to go on from there"
                    )

    def result(self) -> tuple[nn.Module, History]:
        """The result of `run`. RuntimeError if the training has not come to its end."""
        if len(self.history.epochs) < self.training.epochs:
            raise RuntimeError("this training ended in an error: make a new one")
        return self._averaged.model.eval(), self.history

    def state_dict(self) -> dict:
        """The state from which `load_state_dict` goes on: tensors and plain values. Take it in `after_epoch`;
        RuntimeError within an epoch."""
        if self.step != len(self.history.epochs) * len(self._loader):
            raise RuntimeError("within an epoch there is no state to keep: take it in after_epoch")
        return {
            **{name: part.state_dict() for name, part in self._stateful.items()},
            "order": self._loader.generator.get_state(),
            "random": self._random or self._random_states(),
            "history": vars(self.history),
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from the `state_dict()` of a `Trainer` with the same settings, before the first step: to the
        same end, bit for bit on the same machine's CPU with as many threads (TorchJD's methods with a memory
        excepted, see `balance.torchjd`). ValueError if it is of another training or another version."""
        try:
            for name, part in self._stateful.items():
                part.load_state_dict(state[name])
            self._loader.generator.set_state(state["order"])
            self._random, self.history = state["random"], History(**state["history"])
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ValueError(
                f"the state is of another training or version of gradlib ({type(error).__name__}: {reason}); "
                "if it is checkpoint.pt of a run, remove that, and the run begins anew"
            ) from error

    @contextlib.contextmanager
    def _delayed_interrupts(self) -> Iterator[None]:
        """The first interrupt waits for the end of the step, as half a step cannot go on; others do not."""

        def interrupt(number, frame):
            if self._stop.is_set():
                raise KeyboardInterrupt
            self._stop.set()

        before, main = signal.getsignal(signal.SIGINT), threading.main_thread()
        # Only the main thread gets signals. A handler other than Python's own is there on purpose, as for
        # background processes of a shell.
        if threading.current_thread() is not main or before != signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextlib.contextmanager
    def _own_random_states(self) -> Iterator[None]:
        """Random numbers drawn elsewhere while the training rests change nothing in it."""
        for generator, state in zip(self._generators, self._random, strict=False):
            generator.set_rng_state(state)
        self._random = []
        try:
            yield
        finally:
            self._random = self._random_states()

    def _random_states(self) -> list[Tensor]:
        return [generator.get_rng_state() for generator in self._generators]

    def _train(self) -> Iterator[None]:
        """The whole training; yields after every step and after every epoch's validation."""
        for epoch in range(len(self.history.epochs), self.training.epochs):
            first, seconds = self.step, 0.0
            self.model.train()
            start = time.perf_counter()
            for batch in self._loader:
                self._step(epoch, batch)
                seconds += time.perf_counter() - start
                yield
                start = time.perf_counter()  # the time between is not the training's
            self.balancer.after_epoch()
            self.history.epochs.append(self._validate(epoch, seconds, first))
            if self.after_epoch:
                self.after_epoch(self)
            yield

    def _step(self, epoch: int, batch: Sequence[Tensor]) -> None:
        step, history, fabric = self.step, self.history, self._fabric
        images, boxes, views = prepare(batch, fabric)
        if self.training.augment:
            images, boxes = augment(images, boxes)
        at = {"step": step, "epoch": epoch}
        names = [self._loader.dataset.frames[i].name for i in batch[3].tolist()]
        self._probe = self._probe or Probe.due(self.model, self.training, len(self._loader.dataset), at)
        try:
            where = {"measure_at": self._measure_at, "max_norm": MAX_GRADIENT_NORM}
            row = train_step(self.model, images, boxes, views, self.balancer, fabric, self._probe, **where)
        except FloatingPointError as error:
            good = f"that of epoch {epoch}, in checkpoint.pt of the run's folder" if epoch else "the start"
            raise FloatingPointError(
                f"step {step + 1} of {self.steps}, epoch {epoch + 1}: {error}; lower learning_rate, or look "
                f"in 00_data at the frames of this batch ({', '.join(names)}); the last good state is {good}"
            ) from None
        rates = {f"lr_{group['name']}": group["lr"] for group in self._optimizer.param_groups}
        if self._probe:
            history.batches += [{**self._probe.at, "image": name} for name in names]
            if self._probe.ended or (step + 1) % len(self._loader) == 0:
                weights, batch = self.balancer.weights.tolist(), (images, boxes, views)
                options = {"step": rates["lr_shared"], "autocast": fabric.autocast()}
                for name, rows in self._probe.rows(weights, *batch, **options).items():
                    getattr(history, name).extend(rows)
                self._probe = None
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.balancer.after_step(partial(losses_of, self.model, images, boxes, views, fabric))
        self._scheduler.step()
        self._averaged.update()
        history.steps.append({**at, **row, **rates})

    def _validate(self, epoch: int, seconds: float, first: int) -> dict:
        """The row of the epoch that began with step `first`: losses of both parts, validation metrics."""
        train_losses = pd.DataFrame(self.history.steps[first:]).mean().to_dict()
        weights = dict(zip(self.tasks, self.balancer.weights.tolist(), strict=True))
        predictions, valid_losses = predict(self._averaged.model, self.valid_set, self.training)
        detects = "detection" in self.tasks
        confidence = best_confidence(predictions, len(self.classes)) if detects else 0.0
        metrics = evaluate(predictions, self.tasks, self.classes, confidence)
        row = {"epoch": epoch, "seconds": seconds, "train_loss": train_losses["loss"]}
        row["valid_loss"] = sum(weights[task] * loss for task, loss in valid_losses.items())
        for task, loss in valid_losses.items():
            row |= {f"train_loss_{task}": train_losses[f"loss_{task}"], f"valid_loss_{task}": loss}
        return row | {name: value for name, value in metrics.items() if name != "ap50"}
