"""What GradNorm and a probe cost: training steps of YOLOv5n, alternating in one process.

    python benchmarks/step.py [--image-size 224] [--batch 16] [--rounds 15]

Prints the median time of a step as a ratio to a plain step: one forward, one joint backward of the
equally weighted losses. Ratios, because seconds on a busy machine say little.
"""

import argparse
import statistics
import time

import torch

from gradlib.balancing import FixedWeights, GradNorm
from gradlib.config import TASKS, Training
from gradlib.engine import fabric_for, task_losses, train_step
from gradlib.models import MultiTaskYOLO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    fabric = fabric_for(Training())
    model = MultiTaskYOLO("n", 4, 3, TASKS, "neck").to(fabric.device, memory_format=torch.channels_last)
    images = torch.rand(options.batch, 3, options.image_size, options.image_size, device=fabric.device)
    images = images.to(memory_format=torch.channels_last)
    boxes = torch.rand(options.batch, 6, device=fabric.device) * 0.4 + 0.2
    boxes[:, 0], boxes[:, 1] = torch.arange(options.batch), torch.arange(options.batch) % 4
    views = torch.arange(options.batch, device=fabric.device) % 3
    weights = torch.ones(2, dtype=torch.float64)

    def joint():
        losses, _ = task_losses(model(images), boxes, views, model)
        sum(losses.values()).backward()

    def one_backward_a_task():
        losses, _ = task_losses(model(images), boxes, views, model)
        for loss in losses.values():
            loss.backward(retain_graph=True)

    def cut(balancer, probe=False):
        train_step(model, images, boxes, views, balancer, fabric, probe)

    steps = {
        "one joint backward (plain step)": joint,
        "one full backward a task": one_backward_a_task,
        "cut, fixed weights": lambda: cut(FixedWeights(weights)),
        "cut, GradNorm": lambda: cut(GradNorm(weights)),
        "cut, GradNorm and a probe": lambda: cut(GradNorm(weights), probe=True),
    }
    times = {name: [] for name in steps}
    for _ in range(options.rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
            model.zero_grad()
    plain = statistics.median(times["one joint backward (plain step)"][1:])  # the first round warms up
    for name, values in times.items():
        print(f"{name:34} {statistics.median(values[1:]) / plain:5.2f}")


if __name__ == "__main__":
    main()
