"""GradNorm in a plain training loop under torch.distributed, as `torchrun` starts it."""

from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing, nn

from gradlib.balance.gradnorm import GradNorm

STEPS = 12


def train(inputs, targets, measure_at, process_group=None):
    """Losses, norms and weights of every step [3, STEPS, T], and the parameters at the end. Without DDP."""
    torch.manual_seed(0)  # every process starts from the same network
    trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh()).double()
    heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(3)).double()
    parameters = [*trunk.parameters(), *heads.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    norms = "unbiased" if measure_at == "halves" else "batch"
    gradnorm, rows = GradNorm([1.0, 1.0, 1.0], norms=norms, process_group=process_group), []
    for _ in range(STEPS):
        features = trunk(inputs)
        each = [(head(features)[:, 0] - y).square() for head, y in zip(heads, targets.T, strict=True)]
        losses = [one.mean() for one in each]
        halves = [[one[start::2].mean() for one in each] for start in (0, 1)]
        layer = [trunk[2].weight] if measure_at in ("layer", "halves") else ()
        shared = list(trunk.parameters()) if measure_at == "shared" else [features]
        measured = gradnorm.backward(losses, shared, layer, halves)
        if process_group is not None:
            for p in parameters:
                distributed.all_reduce(p.grad, group=process_group)
                p.grad /= process_group.size()
        optimizer.step()
        optimizer.zero_grad()
        rows.append(torch.stack([measured.losses, measured.norms, gradnorm.weights.clone()]))
    return torch.stack(rows, 1), torch.cat([p.detach().flatten() for p in parameters])


def batch():
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    scales = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64)  # so that the weights move
    return inputs, torch.sin(inputs[:, :3] * 2) * scales


def half_of_the_batch(rank, folder, measure_at):
    store = distributed.FileStore(f"{folder}/store", 2)
    limit = timedelta(seconds=60)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
    try:
        parts = [tensor[8 * rank : 8 * (rank + 1)] for tensor in batch()]
        torch.save(train(*parts, measure_at, distributed.group.WORLD), f"{folder}/{rank}.pt")
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("measure_at", ["layer", "cut", "shared", "halves"])
def test_two_processes_with_half_a_batch_each_are_one_with_the_whole(tmp_path, measure_at):
    spawn = multiprocessing.get_context("spawn")
    other = spawn.Process(target=half_of_the_batch, args=(1, tmp_path, measure_at))
    other.start()
    half_of_the_batch(0, tmp_path, measure_at)  # this process is the first of the two
    other.join(60)
    assert other.exitcode == 0
    rows, parameters = train(*batch(), measure_at)
    assert (rows[2, -1] - 1).abs().max() > 0.05  # the weights have moved
    for rank in range(2):
        own_rows, own_parameters = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert torch.allclose(own_rows, rows, rtol=0, atol=1e-6)
        assert torch.allclose(own_parameters, parameters, rtol=0, atol=1e-6)


def test_half_a_batch_alone_gives_other_weights():
    inputs, targets = batch()
    weights, whole = (train(inputs[:n], targets[:n], "layer")[0][2] for n in (8, 16))
    assert (weights - whole).abs().max() > 1e-3
