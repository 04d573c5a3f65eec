"""Training and evaluation: the step, the epoch, the loop.

The step is the balancer's: every task back to the cut, weights from the gradients at the last shared layer,
the shared part back once.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from gradlib.augmentation import Augmentation
from gradlib.balancing import Balancer, FixedWeights, GradNorm
from gradlib.boxes import cxcywh_to_xyxy, non_maximum_suppression
from gradlib.config import Solution, Training
from gradlib.devices import fabric_for, prepare
from gradlib.gradients import conflict_by_stage, weighted_shares
from gradlib.images import FrameSet, collate, unletterbox_boxes
from gradlib.losses import classification_loss, detection_loss, view_weights
from gradlib.metrics import best_confidence, classification_metrics, detection_metrics
from gradlib.models import MultiTaskYOLO, decode
from gradlib.pairs import conflict_by_pair
from gradlib.torchjd_balancers import from_torchjd

__all__ = ["History", "evaluate", "fit", "optimizer_for", "predict", "task_losses", "train_step"]

LOWEST_CONFIDENCE = 0.001  # below it a detection adds nothing to average precision
CANDIDATES = 300  # a class and a cell each, before suppression
DETECTIONS = 100  # after suppression: COCO's limit
SUPPRESSION_IOU = 0.6
LARGEST_GRADIENT = 10.0  # norm at which gradients are clipped, as YOLOv5 does


@dataclass
class History:
    """What a training leaves, row by row: `steps`, `probes`, `pairs` and `epochs` (as in a run folder)."""

    steps: list[dict] = field(default_factory=list)
    probes: list[dict] = field(default_factory=list)
    pairs: list[dict] = field(default_factory=list)
    epochs: list[dict] = field(default_factory=list)

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: pd.DataFrame(rows) for name, rows in vars(self).items()}


def task_losses(
    outputs: Mapping[str, list[Tensor] | Tensor], boxes: Tensor, views: Tensor, model: MultiTaskYOLO
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Raw outputs and targets (boxes [M, 6], views [B]) -> {task: scalar}, {part of detection: scalar}."""
    losses, parts = {}, {}
    for task, output in outputs.items():
        if task == "detection":
            anchors = model.paths["detection"]["head"]["24"].anchors
            losses[task], parts = detection_loss(output, anchors, boxes)
        else:
            weights = model.paths["classification"]["head"].loss_weights
            losses[task] = classification_loss(output, views, weights)
    return losses, parts


def optimizer_for(model: MultiTaskYOLO, training: Training) -> torch.optim.AdamW:
    """AdamW with a learning rate for the shared part and for each task's own, and weight decay on the
    weights of convolutions and linear layers only."""
    groups = []
    for name in ("shared", *model.tasks):
        parameters = list(model.shared_parameters() if name == "shared" else model.task_parameters(name))
        rate = training.learning_rate_classification if name == "classification" else training.learning_rate
        for decay, chosen in (
            (training.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim == 1]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": name})
    return torch.optim.AdamW(groups, fused=True)


def schedule(optimizer: torch.optim.Optimizer, training: Training, steps_per_epoch: int):
    """Linear warm-up, then a cosine from each group's own rate down to the common final one."""
    total = training.epochs * steps_per_epoch
    warmup = min(round(training.warmup_epochs * steps_per_epoch), total // 2)

    def factor(start: float) -> Callable[[int], float]:
        floor = min(training.learning_rate_final / start, 1.0)

        def at(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            progress = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
            return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2

        return at

    factors = [factor(group["lr"]) for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def balancer_for(solution: Solution, training: Training) -> Balancer:
    """The balancer that a solution asks for, at its start weights."""
    rate, options = training.weights_learning_rate, dict(solution.options)
    if solution.balancer == "fixed":
        return FixedWeights(solution.weights)
    if solution.balancer == "gradnorm":
        options.pop("layer", None)  # the network's own business
        return GradNorm(solution.weights, alpha=training.alpha, learning_rate=rate, **options)
    return from_torchjd(solution.balancer, solution.weights, options, rate)


def train_step(
    model: MultiTaskYOLO,
    images: Tensor,
    boxes: Tensor,
    views: Tensor,
    balancer: Balancer,
    fabric: Fabric,
    probe: bool = False,
    pairs: bool = False,
    layer: str = "",
) -> tuple[dict[str, float], list[dict], list[dict]]:
    """Forward, and backward into the parameters' `.grad`; the balancer's weights move after their use.

    images [B, 3, S, S] in 0-1, boxes [M, 6], views [B]. layer: where the tasks' gradients are measured, as
    `MultiTaskYOLO.shared_weight` knows it. Returns the row of the step, the rows by stage (if `probe`) and
    those by class and view (if `pairs`); both are empty where nothing is shared.
    FloatingPointError, and nothing run back, where a loss is not finite.
    """
    tasks = model.tasks
    with fabric.autocast():
        # Views, for the maps of later stages are computed from those of earlier ones.
        features = tuple(feature.view_as(feature) for feature in model.forward_shared(images))
        outputs = {task: model.forward_task(task, features) for task in tasks}
    losses, parts = task_losses(outputs, boxes, views, model)
    for task, loss in losses.items():
        if not loss.isfinite():
            cure = "lower learning_rate or look at the data's problems in 00_data"
            raise FloatingPointError(f"the {task} loss is {float(loss.detach())}; {cure}")
    measure_at = [model.shared_weight(layer)] if model.shared else []
    fights = conflict_by_pair(model, outputs, boxes, views, *measure_at) if pairs and model.shared else []
    probed = list(model.shared_parameters()) if probe else []
    measured = balancer.backward(list(losses.values()), features, measure_at, probed)
    values, weights = measured.losses.tolist(), measured.weights.tolist()
    row = {"loss": sum(weight * value for weight, value in zip(weights, values, strict=True))}
    row |= {f"loss_{task}": value for task, value in zip(tasks, values, strict=True)}
    row |= {f"loss_{part}": float(v) for part, v in parts.items()}
    row |= {f"weight_{task}": weight for task, weight in zip(tasks, weights, strict=True)}
    if measured.norms is not None:
        row |= {f"norm_{task}": n for task, n in zip(tasks, measured.norms.tolist(), strict=True)}
        shares = weighted_shares(measured.weights, measured.norms)
        row["share_detection"] = float(shares[tasks.index("detection")])
    rows = conflict_by_stage(model.shared, measured.probed, tasks, weights) if measured.probed else []
    return row, rows, fights


def fit(
    model: MultiTaskYOLO,
    solution: Solution,
    training: Training,
    train_set: FrameSet,
    valid_set: FrameSet,
    classes: Sequence[str],
    after_epoch: Callable[[History], None] | None = None,
) -> tuple[nn.Module, History]:
    """Train, validating after every epoch. Returns the averaged (EMA) model in eval mode, and the history.

    `after_epoch` is called with the history so far. A loss that is not finite raises FloatingPointError.
    """
    fabric = fabric_for(training)
    # Convolutions run faster on channels-last memory, on CPU as on tensor cores.
    model = model.to(fabric.device, memory_format=torch.channels_last).train()
    if "classification" in model.tasks:
        weights = model.paths["classification"]["head"].loss_weights
        views = [frame.view for frame in train_set.frames]
        weights.copy_(view_weights(views, len(weights), training.view_balance))
    averaged = AveragedModel(model, multi_avg_fn=_ema(training.ema_decay), use_buffers=True)
    optimizer, balancer = optimizer_for(model, training), balancer_for(solution, training)
    layer = solution.options.get("layer", "") if solution.balancer == "gradnorm" else ""
    loader = DataLoader(
        train_set,
        training.batch_size,
        shuffle=True,
        # A last batch of one frame would leave nothing to normalise over.
        drop_last=len(train_set) > training.batch_size,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(training.seed),
    )
    scheduler = schedule(optimizer, training, len(loader))
    augmentation = Augmentation().to(fabric.device) if training.augment else None
    history = History()
    with tqdm(total=training.epochs * len(loader), desc=solution.name, unit="step") as bar:
        for epoch in range(training.epochs):
            start, first = time.perf_counter(), len(history.steps)
            model.train()
            for batch in loader:
                step = len(history.steps)
                images, boxes, views = prepare(batch, fabric)
                if augmentation:
                    images, boxes = augmentation(images, boxes)
                probe = training.probe_every > 0 and step % training.probe_every == 0
                # Pairs cost a way back for each class and view, so they come with every fifth probe only.
                pairs = probe and step % (5 * training.probe_every) == 0
                try:
                    row, probed, fights = train_step(
                        model, images, boxes, views, balancer, fabric, probe, pairs, layer
                    )
                except FloatingPointError as error:
                    raise FloatingPointError(f"step {step}: {error}") from None
                rates = {f"lr_{group['name']}": group["lr"] for group in optimizer.param_groups}
                nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
                optimizer.step()
                optimizer.zero_grad()
                balancer.after_step(partial(losses_of, model, images, boxes, views, fabric))
                scheduler.step()
                averaged.update_parameters(model)
                history.steps.append({"step": step, "epoch": epoch, **row, **rates})
                history.probes += [{"step": step, "epoch": epoch, **r} for r in probed]
                history.pairs += [{"step": step, "epoch": epoch, **r} for r in fights]
                bar.update()
            balancer.after_epoch()
            seconds = time.perf_counter() - start
            train_losses = pd.DataFrame(history.steps[first:]).mean()
            weights = dict(zip(model.tasks, balancer.weights.tolist(), strict=True))
            predictions, valid_losses = predict(averaged.module, valid_set, training)
            confidence = best_confidence(predictions, len(classes)) if "detection" in model.tasks else 0.0
            metrics = evaluate(predictions, model.tasks, classes, confidence)
            row = {"epoch": epoch, "seconds": seconds, "train_loss": train_losses["loss"]}
            row["valid_loss"] = sum(weights[task] * loss for task, loss in valid_losses.items())
            for task, loss in valid_losses.items():
                row |= {
                    f"train_loss_{task}": train_losses[f"loss_{task}"],
                    f"valid_loss_{task}": loss,
                }
            row |= {name: value for name, value in metrics.items() if name != "ap50"}
            history.epochs.append(row)
            bar.set_postfix({k: row[k] for k in ("map50", "accuracy") if row.get(k) is not None})
            if after_epoch:
                after_epoch(history)
    return averaged.module.eval(), history


@torch.no_grad()
def losses_of(model: MultiTaskYOLO, images: Tensor, boxes: Tensor, views: Tensor, fabric: Fabric) -> Tensor:
    """The losses [T] of a batch as the network now is, on the CPU, without gradients."""
    with fabric.autocast():
        outputs = model(images)
    return torch.stack([loss for loss in task_losses(outputs, boxes, views, model)[0].values()]).cpu()


@torch.no_grad()
def predict(
    model: MultiTaskYOLO, frames: FrameSet, training: Training
) -> tuple[list[dict], dict[str, float]]:
    """Predictions (as `metrics` describes them, boxes in 0-1 of the original frame) and mean losses."""
    fabric = fabric_for(training)
    training_mode = model.training
    model.eval()
    predictions, losses, batches = [], dict.fromkeys(model.tasks, 0.0), 0
    for batch in DataLoader(frames, training.batch_size, collate_fn=collate):
        images, boxes, views = prepare(batch, fabric)
        with fabric.autocast():
            outputs = model(images)
        for task, loss in task_losses(outputs, boxes, views, model)[0].items():
            losses[task] += float(loss)
        batches += 1
        found = scores = [None] * len(images)
        if "detection" in outputs:
            found = _detections(outputs["detection"], model, images.shape[-1])
        if "classification" in outputs:
            scores = outputs["classification"].float().softmax(-1).cpu()
        for i, detections, score in zip(batch[3].tolist(), found, scores, strict=True):
            predictions.append(_entry(frames, i, detections, score))
    model.train(training_mode)
    return predictions, {task: loss / max(batches, 1) for task, loss in losses.items()}


def evaluate(
    predictions: Sequence[Mapping], tasks: Sequence[str], classes: Sequence[str], confidence: float
) -> dict:
    """All metrics; those of a task that the solution does not have are None."""
    detection = detection_metrics(predictions, classes, confidence)
    if "detection" not in tasks:
        detection = dict.fromkeys(detection)
    if "classification" not in tasks:
        return {**detection, "accuracy": None, "balanced_accuracy": None}
    return {**detection, **classification_metrics(predictions)}


def _detections(raw: Sequence[Tensor], model: MultiTaskYOLO, side: int) -> list[Tensor]:
    """Raw predictions -> for each image [n, 6]: class, confidence, cx, cy, w, h in 0-1, best first."""
    decoded = decode([level.float() for level in raw], model.paths["detection"]["head"]["24"].anchors)
    scores = decoded[..., 4:5] * decoded[..., 5:]  # [B, N, K]
    classes = scores.shape[-1]
    top, index = scores.flatten(1).topk(min(CANDIDATES, scores.shape[1] * classes))  # [B, C], sorted
    label = index % classes
    boxes = decoded[..., :4].gather(1, (index // classes)[..., None].expand(-1, -1, 4))  # [B, C, 4]
    # Classes are suppressed apart: an offset of more than an image moves each to a place of its own.
    apart = cxcywh_to_xyxy(boxes) + (label * side * 4)[..., None]
    kept = non_maximum_suppression(apart, top * (top >= LOWEST_CONFIDENCE), SUPPRESSION_IOU)
    rows = torch.cat((label[..., None].float(), top[..., None], boxes / side), -1)  # [B, C, 6]
    return [image[mask][:DETECTIONS].cpu() for image, mask in zip(rows, kept, strict=True)]


def _entry(frames: FrameSet, i: int, detections: Tensor | None, scores: Tensor | None) -> dict:
    """One entry of `predictions`."""
    frame = frames.frames[i]
    found = []
    if detections is not None:
        original = unletterbox_boxes(detections.numpy(), *frames.sizes[i].tolist(), frames.size)
        found = original.astype(float).round(5).tolist()
    return {
        "image": frame.image.as_posix(),
        "patient": frame.patient,
        "video": frame.video,
        "view": frame.view,
        "view_scores": None if scores is None else scores.double().numpy().round(5).tolist(),
        "boxes": frame.boxes.tolist(),
        "detections": found,
    }


def _ema(decay: float) -> Callable[[list[Tensor], list[Tensor], int], None]:
    """Exponential moving average whose decay ramps up from 0, so that short runs do not drag their
    random start along (YOLOv5 ramps over 2,000 steps; short studies have fewer in all)."""

    @torch.no_grad()
    def average(averages: list[Tensor], currents: list[Tensor], updates: Tensor | int) -> None:
        ramped = decay * (1 - math.exp(-float(updates) / 200))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, currents, 1 - ramped)
        else:  # counters of batches seen
            for average, current in zip(averages, currents, strict=True):
                average.copy_(current)

    return average
