"""One probe of a network in training: what it measures of some batches, as rows."""

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.func import functional_call

from gradlib.config import Training
from gradlib.model.losses import task_losses
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.probe.affinity import affinity
from gradlib.probe.frames import frames_of, half_losses
from gradlib.probe.pairs import conflict_by_pair
from gradlib.probe.split import SplitGradients
from gradlib.probe.stages import conflict_by_stage

# Detection's parts and pairs of class and view cost backward passes of their own.
PROBES_PER_PARTS = 5


class Probe:
    """The tasks' gradients in the shared part of `model` on two halves of each batch that is added.

    frames: how many the training part has. batches: how many to add. layer: a shared parameter at which
    detection's parts (box, objectness, class) and the first batch's classes and views are told apart, too;
    None: they are not. at: the step and epoch of the first batch, which go into every row.
    """

    def __init__(
        self,
        model: MultiTaskYOLO,
        frames: int,
        batches: int,
        layer: Tensor | None = None,
        at: dict | None = None,
    ):
        self.model, self.frames, self.batches, self.added = model, frames, batches, 0
        self.layer, self.at, self.pairs = layer, at or {}, []
        self.stages = SplitGradients(model.shared_parameters())
        self.parts = None if layer is None else SplitGradients([layer])

    @classmethod
    def due(cls, model: MultiTaskYOLO, training: Training, frames: int, at: dict) -> "Probe | None":
        """The probe that begins with the step `at`; None where none is due, or nothing is shared."""
        number, place = divmod(at["step"], training.probe_every or at["step"] + 1)
        if place or not (training.probe_every and model.shared and training.batch_size > 1):
            return None
        layer = None if number % PROBES_PER_PARTS else model.shared_weight("last")
        return cls(model, frames, min(training.probe_batches, training.probe_every), layer, at)

    def add(self, outputs: dict[str, list[Tensor] | Tensor], boxes: Tensor, views: Tensor) -> list[tuple]:
        """Add a batch: its raw outputs, whose graph is kept, boxes [M, 6] and views [B].

        Gives its `half_losses`; the first half is A.
        """
        if self.layer is not None and not self.added:
            self.pairs = conflict_by_pair(self.model, outputs, boxes, views, self.layer)
        halves = half_losses(outputs, boxes, views, self.model)
        self.added += len(views) // 2
        self.stages.add([list(losses.values()) for losses, _ in halves])
        if self.parts:
            self.parts.add([[*parts.values(), losses["classification"]] for losses, parts in halves])
            self._names = [*halves[0][1], "classification"]
        return halves

    @property
    def ended(self) -> bool:
        """Whether all batches have been added."""
        return self.stages.batches >= self.batches

    @property
    def fraction(self) -> float:
        """How much of the training part a half had: two halves without a common frame agree a little less
        than two independent samples."""
        return self.added / self.frames

    def rows(self, weights: list[float], *batch: Tensor, **options) -> dict[str, list[dict]]:
        """The rows of each table that this probe gives. weights: of the tasks; else as `affinity_rows`."""
        tables = {"probes": self.stage_rows(weights), "parts": self.part_rows(), "pairs": self.pairs}
        tables["affinity"] = self.affinity_rows(*batch, **options)
        return {name: [{**self.at, **row} for row in rows] for name, rows in tables.items()}

    def stage_rows(self, weights: list[float]) -> list[dict]:
        """A row for each stage and kind, see `conflict_by_stage`."""
        rows = conflict_by_stage(self.model.shared, self.stages, self.model.tasks, weights)
        return [{**row, "fraction": self.fraction} for row in rows]

    def part_rows(self) -> list[dict]:
        """The inner products between detection's parts and classification; none without a `layer`."""
        return [{**self.parts.products(self._names), "fraction": self.fraction}] if self.parts else []

    def affinity_rows(
        self, images: Tensor, boxes: Tensor, views: Tensor, step: float, autocast: AbstractContextManager
    ) -> list[dict]:
        """A row for each task, and each that a step along its gradient on A moves: their affinity, on the
        half B of this batch, which did not give the gradient."""
        size = len(views) // 2
        chosen = torch.arange(size, 2 * size, device=views.device)
        _, boxes, views = frames_of({}, boxes, views, chosen)
        names = [name for name, _ in self.model.shared.named_parameters(prefix="shared")]
        start = dict(zip(names, self.stages.parameters, strict=True))

        def losses(values: dict[str, Tensor]) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
            devices = [images.device] if images.is_cuda else []
            with torch.random.fork_rng(devices), autocast:
                torch.manual_seed(0)  # the same dropout before the step and after it
                outputs = functional_call(self.model, {**values, **buffers}, images[chosen])
            return torch.stack(list(task_losses(outputs, boxes, views, self.model)[0].values()))

        tasks = self.model.tasks
        values = affinity(losses, start, self.stages.gradients[: len(tasks)], step).tolist()
        return [
            {"source": source, "target": target, "affinity": value}
            for source, row in zip(tasks, values, strict=True)
            for target, value in zip(tasks, row, strict=True)
        ]
