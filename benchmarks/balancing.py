"""What balancing costs: gradlib's GradNorm beside other implementations, on one network, in one process.

    make bench        # or: python benchmarks/balancing.py [--rounds 15] [--threads N] [--batch 16]

YOLOv5n with the classification head, shared up to the neck, 224 px, random content. Each method makes all
gradients of a step and updates its weights; the optimizer's step, the same for all, is left out. The methods
alternate, so that what else the machine does falls on all; the figure is the median over rounds of the ratio
to the plain joint step of the same round. Memory is the peak of what a step allocates, counted by PyTorch's
profiler.

Peers are optional: what is not installed is named and left out. Writes balancing.md and balancing.png here.
"""

import argparse
import datetime
import importlib
import importlib.util
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from step import network_and_batch
from torch.profiler import ProfilerActivity, profile

from gradlib.balance.balancer import Balancer, FixedWeights
from gradlib.balance.gradnorm import GradNorm
from gradlib.balance.torchjd import from_torchjd
from gradlib.config import MEASURE_AT, TASKS, Training
from gradlib.model.losses import task_losses
from gradlib.probe import Probe
from gradlib.train.devices import fabric_for
from gradlib.train.step import train_step

HERE = Path(__file__).parent
PLAIN = "plain joint step (sum of losses)"
FIXED, BATCH, LAST = (
    f"gradlib: fixed weights{what}" for what in ("", ", a probe's batch", ", its last batch")
)


class Bench:
    """One network and one batch, which every method is given."""

    def __init__(self, batch: int, size: int):
        torch.manual_seed(0)
        self.fabric = fabric_for(Training(device="cpu"))
        # Contiguous memory for all, for LibMTL cannot take gradients that are channels-last.
        self.model, self.batch = network_and_batch(batch, size, torch.contiguous_format, self.fabric.device)
        self.shared = list(self.model.shared_parameters())
        self.layer = self.model.shared_weight()

    def losses(self) -> tuple[tuple[torch.Tensor, ...], list[torch.Tensor]]:
        """What leaves the shared part (views of their own), and the two losses."""
        images, boxes, views = self.batch
        features = tuple(f.view_as(f) for f in self.model.forward_shared(images))
        outputs = {task: self.model.forward_task(task, features) for task in TASKS}
        return features, list(task_losses(outputs, boxes, views, self.model)[0].values())

    # --- ours ---

    def plain(self) -> Callable:
        return lambda: sum(self.losses()[1]).backward()

    def ours(self, balancer: Balancer, measure_at: str = MEASURE_AT) -> Callable:
        return lambda: train_step(self.model, *self.batch, balancer, self.fabric, None, measure_at=measure_at)

    def probed(self, last: bool) -> Callable:
        """A batch of a probe; the last makes the rows of stages and takes the lookahead steps."""

        def step():
            probe = Probe(self.model, frames=1000, batches=1)
            train_step(self.model, *self.batch, FixedWeights([1.0, 1.0]), self.fabric, probe)
            if last:
                probe.stage_rows([1.0, 1.0])
                probe.affinity_rows(*self.batch, 1e-3, self.fabric.autocast())

        return step

    # --- peers ---

    def textbook(self) -> Callable:
        """Algorithm 1 as it is written: a graph of the gradients' norms, run back into the weights."""
        weights = torch.ones(2, requires_grad=True)
        adam, initial = torch.optim.Adam([weights], lr=0.025), []

        def step():
            losses = torch.stack(self.losses()[1])
            initial.append(losses.detach()) if not initial else None
            norms = [
                torch.autograd.grad(weight * loss, self.layer, create_graph=True)[0].norm()
                for weight, loss in zip(weights, losses, strict=True)
            ]
            rates = losses.detach() / initial[0]
            norms = torch.stack(norms)
            target = (norms.mean() * (rates / rates.mean()) ** 1.5).detach()
            (gradient,) = torch.autograd.grad((norms - target).abs().sum(), weights, retain_graph=True)
            (weights.detach() * losses).sum().backward()
            weights.grad = gradient
            adam.step()
            with torch.no_grad():
                weights.mul_(2 / weights.sum())

        return step

    def gradnorm_pytorch(self) -> Callable:
        """lucidrains' package, as its README has it. (It raises the rate to the power of minus alpha.)"""
        module = importlib.import_module("gradnorm_pytorch")
        weighter = module.GradNormLossWeighter(
            num_losses=2, learning_rate=1e-4, restoring_force_alpha=1.5, grad_norm_parameters=self.layer
        )
        return lambda: weighter.backward(self.losses()[1])

    def libmtl(self) -> Callable:
        """LibMTL's, over all shared parameters, in its own way from the second epoch on."""
        if "LibMTL" not in sys.modules:
            # Its __init__ imports torchvision for models that are not needed here: enter beside it.
            package = types.ModuleType("LibMTL")
            package.__path__ = importlib.util.find_spec("LibMTL").submodule_search_locations
            sys.modules["LibMTL"] = package
        method = importlib.import_module("LibMTL.weighting.GradNorm").GradNorm()
        method.task_num, method.device, method.rep_grad, method.epoch = 2, torch.device("cpu"), False, 1
        method.get_share_params = lambda: self.shared
        method.zero_grad_share_params = lambda: [p.grad.zero_() for p in self.shared]
        method.init_param()
        with torch.no_grad():
            method.train_loss_buffer = torch.stack(self.losses()[1])[:, None].numpy()
        return lambda: method.backward(torch.stack(self.losses()[1]), alpha=1.5)

    def torchjd(self, name: str) -> Callable:
        """TorchJD's own way: the Jacobian at the shared parameters, then the aggregator."""
        autojac = importlib.import_module("torchjd.autojac")
        aggregator = getattr(importlib.import_module("torchjd.aggregation"), name)()

        def step():
            features, losses = self.losses()
            # One task after the other: batched over tasks its backward is slower on a CPU.
            autojac.mtl_backward(losses, features=features, shared_params=self.shared, parallel_chunk_size=1)
            autojac.jac_to_grad(self.shared, aggregator)

        return step


def methods(bench: Bench) -> dict[str, Callable]:
    """Every method that is installed, by name; what is not is named."""
    ones = [1.0, 1.0]
    makers = {
        PLAIN: bench.plain,
        FIXED: lambda: bench.ours(FixedWeights(ones)),
        BATCH: lambda: bench.probed(last=False),
        LAST: lambda: bench.probed(last=True),
        "gradlib: GradNorm at a layer": lambda: bench.ours(GradNorm(ones), "last"),
        "gradlib: GradNorm at the cut": lambda: bench.ours(GradNorm(ones), "cut"),
        "gradlib: GradNorm at all shared weights": lambda: bench.ours(GradNorm(ones), "shared"),
        "textbook GradNorm (double backward)": bench.textbook,
        "gradnorm-pytorch": bench.gradnorm_pytorch,
        "LibMTL: GradNorm": bench.libmtl,
        "gradlib: PCGrad": lambda: bench.ours(from_torchjd("PCGrad", ones, {})),
        "TorchJD: PCGrad": lambda: bench.torchjd("PCGrad"),
        "gradlib: UPGrad": lambda: bench.ours(from_torchjd("UPGrad", ones, {})),
        "TorchJD: UPGrad": lambda: bench.torchjd("UPGrad"),
    }
    made = {}
    for name, make in makers.items():
        try:
            made[name] = make()
        except (ImportError, AttributeError) as error:  # find_spec gives None for what is not there
            print(f"{name}: left out, not installed ({error})")
    return made


def measure(steps: dict[str, Callable], model: torch.nn.Module, rounds: int) -> pd.DataFrame:
    """Median ratio of the time to the plain step's, its spread (middle half), and peak memory in MiB."""
    seconds = {name: [] for name in steps}
    for _ in range(rounds + 2):
        for name, step in steps.items():
            model.zero_grad()
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    rows = {}
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(own[2:], seconds[PLAIN][2:], strict=True)]  # the first two warm up
        low, middle, high = statistics.quantiles(ratios, n=4)
        model.zero_grad()
        rows[name] = {"time": middle, "low": low, "high": high, "MiB": peak(steps[name])}
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(memory=table["MiB"] / table.loc[PLAIN, "MiB"])


def peak(step: Callable) -> float:
    """The most that one step holds beyond what was there before it, in MiB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = pd.Series([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return held.cumsum().max() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=224)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    bench = Bench(options.batch, options.image_size)
    table = measure(methods(bench), bench.model, options.rounds)
    about = (
        f"YOLOv5n and views, {options.image_size} px, batch {options.batch}, {options.threads} thread(s), "
        f"float32; {processor()}, PyTorch {torch.__version__.partition('+')[0]}, {datetime.date.today()}; "
        f"{options.rounds} rounds."
    )
    lines = ["| step | time | middle half of rounds | peak memory |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row.time:.2f} | {row.low:.2f}-{row.high:.2f} | {row.memory:.2f} ({row.MiB:.0f} MiB) |"
        for name, row in table.iterrows()
    ]
    times, every, batches = table["time"], Training.probe_every, Training.probe_batches
    more = (batches - 1) * times[BATCH] + times[LAST] - batches * times[FIXED]
    probes = (
        f"A probe of {batches} batches every {every} steps, the default, takes a training to "
        f"{1 + more / times[FIXED] / every:.2f} times one without."
    )
    text = f"# What balancing costs\n\n{about} Ratios to the plain joint step.\n\n" + "\n".join(lines)
    text += f"\n\n{probes}\n"
    print(text)
    (HERE / "balancing.md").write_text(text, encoding="utf-8")
    draw(table).savefig(HERE / "balancing.png", dpi=110)


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def draw(table: pd.DataFrame) -> plt.Figure:
    """Time and memory as bars, ours apart in colour."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    shades = [
        "0.6" if name == PLAIN else "C0" if name.startswith("gradlib") else "C1" for name in table.index
    ]
    for ax, column, label in zip(axes, ("time", "memory"), ("time", "peak memory"), strict=True):
        bars = ax.barh(table.index, table[column], color=shades)
        ax.bar_label(bars, fmt="%.2f", padding=3)
        ax.axvline(1, color="0.4", linewidth=0.8)
        ax.set(xlabel=f"{label} of a step, plain joint step = 1", xlim=(0, 1.15 * table[column].max()))
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
