"""What a training step of YOLOv5n costs, by how its numbers are kept: memory format and precision.

    python benchmarks/step.py [--image-size 224] [--batch 16] [--rounds 15] [--threads N]

Whole steps with GradNorm and the optimizer, by turns in one process. Prints the median over rounds of each
one's ratio to the first of the same round, and the middle half of the rounds; seconds on a busy machine say
little. What GradNorm itself costs: balancing.py.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from gradlib.balance.gradnorm import GradNorm
from gradlib.config import TASKS, Training
from gradlib.model.yolo import MultiTaskYOLO
from gradlib.train.devices import fabric_for
from gradlib.train.optimization import optimizer_for
from gradlib.train.step import train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, batch {options.batch}, {options.image_size} px\n")
    show(how(options), options.rounds)


def how(options: argparse.Namespace) -> dict[str, Callable]:
    """A whole step of the same network by memory format and precision."""

    def steps(layout: torch.memory_format, precision: str) -> Callable:
        training = Training(precision=precision)
        fabric = fabric_for(training)
        model, batch = network_and_batch(options.batch, options.image_size, layout, fabric.device)
        optimizer, balancer = optimizer_for(model, training), GradNorm([1.0, 1.0])

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


def network_and_batch(batch: int, size: int, layout: torch.memory_format, device: torch.device) -> tuple:
    """The network with both tasks, and images, boxes and views of random content."""
    model = MultiTaskYOLO("n", 4, 3, TASKS, "neck").to(device, memory_format=layout)
    images = torch.rand(batch, 3, size, size, device=device).to(memory_format=layout)
    boxes = torch.rand(batch, 6, device=device) * 0.4 + 0.2
    boxes[:, 0], boxes[:, 1] = torch.arange(batch), torch.arange(batch) % 4
    return model, (images, boxes, torch.arange(batch, device=device) % 3)


def show(steps: Mapping[str, Callable], rounds: int) -> None:
    """Time the steps by turns, and print the ratios to the first."""
    times = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - started)
    first = next(iter(times.values()))
    for name, own in times.items():
        ratios = [a / b for a, b in zip(own[2:], first[2:], strict=True)]  # the first two warm up
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"  {name:22} {middle:5.2f}  ({low:.2f}-{high:.2f})", flush=True)


if __name__ == "__main__":
    main()
