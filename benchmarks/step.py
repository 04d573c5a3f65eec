"""What a training step of YOLOv5n costs, by what it does and by how its numbers are kept.

    python benchmarks/step.py [--image-size 224] [--batch 16] [--rounds 15] [--threads N]

Prints the median time of each kind of step as a ratio to the first of its table; the kinds of a table
alternate in one process. Ratios, because seconds on a busy machine say little.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from gradlib.balancing import FixedWeights, GradNorm
from gradlib.config import TASKS, Training
from gradlib.engine import fabric_for, optimizer_for, task_losses, train_step
from gradlib.models import MultiTaskYOLO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, batch {options.batch}, {options.image_size} px\n")
    show("what a step does", what(options), options.rounds)
    show("how its numbers are kept (GradNorm, with the optimizer's step)", how(options), options.rounds)


def what(options: argparse.Namespace) -> dict[str, Callable]:
    """Forward and backward: joint, one backward a task, cut."""
    fabric = fabric_for(Training())
    model, batch = network_and_batch(options, torch.channels_last)
    weights = torch.ones(2, dtype=torch.float64)

    def joint():
        images, boxes, views = batch
        losses, _ = task_losses(model(images), boxes, views, model)
        sum(losses.values()).backward()
        model.zero_grad()

    def one_backward_a_task():
        images, boxes, views = batch
        losses, _ = task_losses(model(images), boxes, views, model)
        for loss in losses.values():
            loss.backward(retain_graph=True)
        model.zero_grad()

    def cut(balancer, probe=False):
        train_step(model, *batch, balancer, fabric, probe)
        model.zero_grad()

    return {
        "one joint backward (plain step)": joint,
        "one full backward a task": one_backward_a_task,
        "cut, fixed weights": lambda: cut(FixedWeights(weights)),
        "cut, GradNorm": lambda: cut(GradNorm(weights)),
        "cut, GradNorm and a probe": lambda: cut(GradNorm(weights), probe=True),
    }


def how(options: argparse.Namespace) -> dict[str, Callable]:
    """A whole step of the same network by memory format and precision."""

    def steps(layout: torch.memory_format, precision: str) -> Callable:
        training = Training(precision=precision)
        fabric = fabric_for(training)
        model, batch = network_and_batch(options, layout)
        optimizer, balancer = optimizer_for(model, training), GradNorm(torch.ones(2, dtype=torch.float64))

        def step():
            train_step(model, *batch, balancer, fabric)
            optimizer.step()
            optimizer.zero_grad()

        return step

    kinds = {
        "fp32, contiguous": steps(torch.contiguous_format, "32-true"),
        "fp32, channels last": steps(torch.channels_last, "32-true"),
    }
    try:
        kinds["bf16, channels last"] = steps(torch.channels_last, "bf16-mixed")
    except ValueError as error:
        print(f"bf16 is left out: {error}\n")
    return kinds


def network_and_batch(options: argparse.Namespace, layout: torch.memory_format) -> tuple:
    """The network with both tasks, and images, boxes and views of random content."""
    device = fabric_for(Training()).device
    model = MultiTaskYOLO("n", 4, 3, TASKS, "neck").to(device, memory_format=layout)
    images = torch.rand(options.batch, 3, options.image_size, options.image_size, device=device)
    boxes = torch.rand(options.batch, 6, device=device) * 0.4 + 0.2
    boxes[:, 0], boxes[:, 1] = torch.arange(options.batch), torch.arange(options.batch) % 4
    views = torch.arange(options.batch, device=device) % 3
    return model, (images.to(memory_format=layout), boxes, views)


def show(title: str, steps: Mapping[str, Callable], rounds: int) -> None:
    """Time the steps by turns, and print the ratio of each median to the first's."""
    times = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}  # the first warms up
    first = next(iter(medians.values()))
    print(title)
    for name, value in medians.items():
        print(f"  {name:34} {value / first:5.2f}")
    print(flush=True)


if __name__ == "__main__":
    main()
