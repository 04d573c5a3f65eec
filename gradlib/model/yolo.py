"""YOLOv5 (releases 6 and 7) with a classification path, and one axis for where the two part.

Letters: B images, C channels, H, W feature map, A anchors a cell, K object classes, V views.
The architecture facts (layer numbers, widths, depths, anchors) are those of the published YOLOv5
configuration files; layers carry the published numbers, so that `model.<layer>.<...>` of an official
checkpoint and `<path>.<stage>.<layer>.<...>` here name the same tensor.

The network is one sequence of stages, each from a tuple of feature maps to the next:

    image -> p1 -> p2 -> p3 -> p4 -> p5 -> neck -> detection head        (layers 18-24)
                                               \\-> classification head   (from the neck's three maps)

`branch` says how many stages the two tasks share. Each task has its own copy of the rest, up to and
including the neck: the network of one task is the same for every branch, only the shared part varies.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gradlib.checks import closest
from gradlib.config import BRANCHES, TASKS
from gradlib.model.blocks import C3, SPPF, Conv

# Depth and width multiples.
SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.00, 1.00), "x": (1.33, 1.25)}
STRIDES = (8, 16, 32)  # pixels a cell of P3, P4, P5
ANCHORS = (  # width, height in pixels, three a level, as published (fitted to COCO at 640 px)
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
STAGES = BRANCHES[1:]  # p1 ... p5, neck


class Detect(nn.Module):
    """One 1x1 convolution a level -> raw predictions [B, A, H, W, 5 + K] (x, y, w, h, objectness, K)."""

    def __init__(self, classes: int, channels: Sequence[int]):
        super().__init__()
        self.outputs = 5 + classes
        self.register_buffer("anchors", torch.tensor(ANCHORS, dtype=torch.float32))  # [3, A, 2] px
        per_level = len(ANCHORS[0]) * self.outputs
        self.m = nn.ModuleList(nn.Conv2d(c, per_level, 1) for c in channels)
        for conv, stride in zip(self.m, STRIDES, strict=True):
            # Start from the rate at which a cell holds an object (8 in a 640 px image), so that
            # the first steps are not spent on learning that most cells are empty.
            bias = conv.bias.detach().view(-1, self.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5:] += math.log(0.6 / (classes - 0.99999))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        raw = []
        for conv, x in zip(self.m, features, strict=True):
            y = conv(x)  # [B, A * (5 + K), H, W]
            b, _, h, w = y.shape
            raw.append(y.view(b, -1, self.outputs, h, w).permute(0, 1, 3, 4, 2))  # [B, A, H, W, 5 + K]
        return raw


class BackboneStage(nn.ModuleDict):
    """Numbered layers in sequence. Passes on the last `keeps` feature maps, for the neck, and its own."""

    def __init__(self, keeps: int, layers: dict[str, nn.Module]):
        super().__init__(layers)
        self.keeps = keeps

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = features[-1]
        for layer in self.values():
            x = layer(x)
        return (*features[len(features) - self.keeps :], x)


class Neck(nn.ModuleDict):
    """Top-down path: (P3, P4, P5) of the backbone -> (lateral 5, lateral 4, P3)."""

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        p3, p4, p5 = features
        lateral5 = self["10"](p5)
        lateral4 = self["14"](self["13"](torch.cat((_double(lateral5), p4), 1)))
        return lateral5, lateral4, self["17"](torch.cat((_double(lateral4), p3), 1))


class DetectionHead(nn.ModuleDict):
    """Bottom-up path and Detect -> raw predictions of P3, P4, P5, each [B, A, H, W, 5 + K]."""

    def forward(self, features: tuple[Tensor, ...]) -> list[Tensor]:
        lateral5, lateral4, p3 = features
        p4 = self["20"](torch.cat((self["18"](p3), lateral4), 1))
        p5 = self["23"](torch.cat((self["21"](p4), lateral5), 1))
        return self["24"]((p3, p4, p5))


class ClassificationHead(nn.Module):
    """The neck's maps (lateral 5, lateral 4, P3; of so many `channels`) -> logits [B, V].

    The means of the three maps and one linear layer. The lateral maps see the whole frame, which tells the
    view; from P3 alone the head would need convolutions of its own, and from a thousand frames those learn
    less about unseen patients.
    """

    def __init__(self, channels: Sequence[int], views: int):
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.linear = nn.Linear(sum(channels), views)
        self.register_buffer("loss_weights", torch.ones(views))  # [V], set by the Trainer

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        pooled = torch.cat([feature.mean((2, 3)) for feature in features], 1)
        return self.linear(self.dropout(pooled))


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")


def _layer_sizes(size: str, width: float):
    """Two functions: the channels and the repeats of this size and width, from the published ones."""
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}{closest(size, SIZES)}")
    depth, published = SIZES[size]

    def channels(c: int) -> int:
        # YOLOv5 rounds up to a multiple of 8. Rounding to the nearest is the same for its own sizes, and
        # finer between them: rounded up, two narrow networks of size n have 5 % fewer parameters than the
        # shared one, or 9 % more.
        return max(round(c * published * width / 8), 1) * 8

    return channels, lambda n: max(round(n * depth), 1)


def _stage(name: str, size: str, width: float) -> nn.Module:
    c, n = _layer_sizes(size, width)
    # By stage: first layer, channels in, channels out, repeats.
    down = {"p2": (1, 64, 128, 3), "p3": (3, 128, 256, 6), "p4": (5, 256, 512, 9), "p5": (7, 512, 1024, 3)}
    if name == "p1":
        return BackboneStage(0, {"0": Conv(3, c(64), 6, 2, 2)})
    if name == "neck":
        lateral5 = {"10": Conv(c(1024), c(512))}
        lateral4 = {"13": C3(2 * c(512), c(512), n(3), shortcut=False), "14": Conv(c(512), c(256))}
        return Neck({**lateral5, **lateral4, "17": C3(2 * c(256), c(256), n(3), shortcut=False)})
    first, c_in, c_out, repeats = down[name]
    layers = {str(first): Conv(c(c_in), c(c_out), 3, 2), str(first + 1): C3(c(c_out), c(c_out), n(repeats))}
    if name == "p5":
        layers["9"] = SPPF(c(1024), c(1024))
    return BackboneStage({"p4": 1, "p5": 2}.get(name, 0), layers)


def _head(task: str, size: str, width: float, classes: int, views: int) -> nn.Module:
    c, n = _layer_sizes(size, width)
    if task == "classification":
        return ClassificationHead((c(512), c(256), c(256)), views)
    p4 = {"18": Conv(c(256), c(256), 3, 2), "20": C3(2 * c(256), c(512), n(3), shortcut=False)}
    p5 = {"21": Conv(c(512), c(512), 3, 2), "23": C3(2 * c(512), c(1024), n(3), shortcut=False)}
    return DetectionHead({**p4, **p5, "24": Detect(classes, (c(256), c(512), c(1024)))})


class MultiTaskYOLO(nn.Module):
    """The network of a solution.

    size: n, s, m, l or x. classes, views: their number. tasks, branch, width: as in `config.Solution`.
    `shared` holds the stages that all tasks share; `paths[task]` the task's own stages and its head.
    A single task shares nothing.
    """

    def __init__(
        self, size: str, classes: int, views: int, tasks: Sequence[str], branch: str, width: float = 1.0
    ):
        super().__init__()
        if branch not in BRANCHES:
            raise ValueError(f"unknown branch {branch!r}{closest(branch, BRANCHES)}")
        needs = ("detection", classes, 1, "a class"), ("classification", views, 2, "two image classes")
        for task, count, least, noun in needs:
            if task in tasks and count < least:
                other = next(name for name in TASKS if name != task)
                cure = f"take solution={other}-only" + ", or write `image_class` in data.yaml" * (least > 1)
                raise ValueError(f"{task} needs {noun} at least, and the data have {count}; {cure}")
        common = BRANCHES.index(branch) if len(tasks) > 1 else 0
        self.tasks, self.branch, self.size, self.width = tuple(tasks), branch, size, width
        self.shared = nn.ModuleDict({name: _stage(name, size, width) for name in STAGES[:common]})
        self.paths = nn.ModuleDict()
        for task in tasks:
            own = nn.ModuleDict({name: _stage(name, size, width) for name in STAGES[common:]})
            own["head"] = _head(task, size, width, classes, views)
            self.paths[task] = own

    @property
    def anchors(self) -> Tensor:
        """Width and height in pixels of the detection head's anchors: [3, A, 2], three levels."""
        return self.paths["detection"]["head"]["24"].anchors

    @property
    def view_weights(self) -> Tensor:
        """The weight of each view in the classification loss: [V]."""
        return self.paths["classification"]["head"].loss_weights

    def forward_shared(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [B, 3, H, W] in 0-1 -> the feature maps that leave the shared part (the images
        themselves where nothing is shared)."""
        features = (images,)
        for stage in self.shared.values():
            features = stage(features)
        return features

    def forward_task(self, task: str, features: tuple[Tensor, ...]) -> list[Tensor] | Tensor:
        """The output of `forward_shared` -> the task's raw output: detection three tensors
        [B, A, H, W, 5 + K], classification logits [B, V]."""
        for stage in self.paths[task].values():
            features = stage(features)
        return features

    def forward(self, images: Tensor) -> dict[str, list[Tensor] | Tensor]:
        features = self.forward_shared(images)
        return {task: self.forward_task(task, features) for task in self.tasks}

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that every task uses. With `task_parameters`: disjoint, together all."""
        return self.shared.parameters()

    def task_parameters(self, task: str) -> Iterator[nn.Parameter]:
        """The parameters that only `task` uses."""
        return self.paths[task].parameters()

    def shared_weight(self, layer: str = "last") -> nn.Parameter:
        """The convolution weight [C_out, C_in, k, k] at which the tasks' gradients are measured.

        layer: a shared stage, for its last convolution, or the name of a convolution in `shared`
        (`p3.4.cv3.conv`); `last`, the last shared one, as in GradNorm's paper.
        """
        if not self.shared:
            raise ValueError(
                f"branch {self.branch!r} with tasks {', '.join(self.tasks)} shares no layer, so there is "
                "no shared gradient; choose a branch from p1 to neck and two tasks"
            )
        if layer == "last":
            layer = list(self.shared)[-1]
        if layer in self.shared:
            return list(self.shared[layer].values())[-1].last_conv.weight
        convolutions = {name: m for name, m in self.shared.named_modules() if isinstance(m, nn.Conv2d)}
        if layer not in convolutions:
            raise ValueError(f"unknown shared layer {layer!r}{closest(layer, [*self.shared, *convolutions])}")
        return convolutions[layer].weight


def decode(raw: Sequence[Tensor], anchors: Tensor) -> Tensor:
    """Raw predictions, one [B, A, H, W, 5 + K] a level -> [B, N, 5 + K] (cx, cy, w, h in pixels,
    objectness and class probabilities in 0-1), N the anchors of all cells and levels."""
    decoded = []
    for level, stride, anchor in zip(raw, STRIDES, anchors, strict=True):
        b, a, h, w, outputs = level.shape
        y = level.sigmoid()
        sides = (torch.arange(n, device=y.device) for n in (h, w))
        rows, columns = torch.meshgrid(*sides, indexing="ij")
        cell = torch.stack((columns, rows), -1).to(y.dtype)  # [H, W, 2]
        centre = (y[..., :2] * 2 - 0.5 + cell) * stride
        size = (y[..., 2:4] * 2).square() * anchor.to(y.dtype).view(1, a, 1, 1, 2)
        decoded.append(torch.cat((centre, size, y[..., 4:]), -1).reshape(b, -1, outputs))
    return torch.cat(decoded, 1)  # [B, N, 5 + K]


def multiply_adds(model: nn.Module, image_size: int) -> int:
    """Multiply-additions of one forward pass of one image of image_size x image_size pixels."""
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    images = torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(images)
    model.train(training)
    return counter.get_total_flops() // 2  # it counts a multiply-addition as two operations


def network_cost(model: MultiTaskYOLO, image_size: int) -> dict[str, int]:
    """Numbers of parameters (all, shared, each task's own), and `macs`: multiply-additions of one image of
    image_size x image_size pixels."""

    def count(parameters) -> int:
        return sum(p.numel() for p in parameters)

    cost = {"parameters": count(model.parameters()), "macs": multiply_adds(model, image_size)}
    cost["parameters_shared"] = count(model.shared_parameters())
    own = {task: model.task_parameters(task) if task in model.tasks else () for task in TASKS}
    return cost | {f"parameters_{task}": count(parameters) for task, parameters in own.items()}
