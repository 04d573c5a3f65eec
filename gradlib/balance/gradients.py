"""The tasks' gradients where a network is shared: taken apart at the cut, measured, put together again.

The *cut* is the set of tensors that leave the shared part. The gradient of each task's loss goes back to
the cut and into the task's own parameters (parts of their own, so this costs what one joint backward
would), and the shared part is run back once, from the weighted sum. Gradients multiply by the chain rule
whatever their order, so the result is that of one joint backward of the weighted loss.

Nothing here knows the network: it works on the graph that the losses come with. T tasks.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn
from torch.autograd.graph import Node, get_gradient_edge

__all__ = ["TaskGradients", "conflict_by_stage", "cosine", "magnitude_similarity", "weighted_shares"]


@dataclass
class TaskGradients:
    """The unweighted gradients of T losses, as far back as the cut.

    shared: the tensors at which the tasks meet. at_shared: [T] lists, each task's gradient at them.
    own: for each task the pairs (parameter, gradient) of what its loss reaches beside the cut.
    """

    shared: list[Tensor]
    at_shared: list[list[Tensor]]
    own: list[list[tuple[Tensor, Tensor]]]

    @classmethod
    def of(cls, losses: Sequence[Tensor], shared: Sequence[Tensor]) -> "TaskGradients":
        """Run each of `losses` (scalars) back to `shared`: the tensors that leave the shared part, or the
        shared parameters themselves, which costs a pass through the shared part for every task.

        What of `shared` needs no gradient (input images, where nothing is shared) is left out. Nothing is
        put into any `.grad` yet. ValueError if the tasks meet elsewhere than at `shared`, or if one of these
        tensors is computed from another, whose gradient would then count twice.
        """
        shared = [tensor for tensor in shared if tensor.requires_grad]
        _check_apart(shared)
        through_one_graph = any(tensor.is_leaf for tensor in shared)
        at_shared, own = [], []
        for i, loss in enumerate(losses):
            leaves = _leaves([loss], shared)
            keep = through_one_graph and i + 1 < len(losses)
            with _whole_cut():
                found = torch.autograd.grad(loss, [*shared, *leaves], retain_graph=keep, allow_unused=True)
            at = found[: len(shared)]
            at_shared.append(
                [torch.zeros_like(s) if g is None else g for g, s in zip(at, shared, strict=True)]
            )
            own.append(
                [pair for pair in zip(leaves, found[len(shared) :], strict=True) if pair[1] is not None]
            )
        return cls(shared, at_shared, own)

    def shared_parameters(self) -> list[Tensor]:
        """The parameters behind the cut, or those that were named as shared."""
        return _leaves(self.shared, [])

    def at(self, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """The gradients of each task at shared `parameters`: [T] lists. Costs the way from the cut to them,
        once a task; the graph is kept."""
        places = {id(tensor): i for i, tensor in enumerate(self.shared)}
        if all(id(p) in places for p in parameters):
            return [[at[places[id(p)]] for p in parameters] for at in self.at_shared]
        gradients = []
        for at in self.at_shared:
            with _whole_cut():
                found = torch.autograd.grad(self.shared, parameters, at, retain_graph=True, allow_unused=True)
            if any(gradient is None for gradient in found):
                raise ValueError(
                    "a parameter to measure at is not behind the shared tensors: take one that is"
                )
            gradients.append(list(found))
        return gradients

    def norms(self, layer: Sequence[Tensor], process_group: distributed.ProcessGroup | None = None) -> Tensor:
        """The norm of each task's gradient at the parameters `layer`: [T], float32 or wider, on the CPU.

        process_group: the norms of the gradients' means over its processes, i.e. of the whole batch.
        """
        gradients = (mean_over_processes(own, process_group) for own in self.at(layer))
        return torch.stack([_norm(own) for own in gradients]).cpu()

    def accumulate_own(self, weights: Sequence[float]) -> None:
        """Add each task's gradient, times its weight, to the `.grad` of its own parameters."""
        for weight, pairs in zip(weights, self.own, strict=True):
            if pairs:
                scaled = torch._foreach_mul([gradient for _, gradient in pairs], float(weight))
                accumulate([parameter for parameter, _ in pairs], scaled)

    def backward_shared(self, weights: Sequence[float]) -> None:
        """Run the shared part back once, from the weighted sum of the tasks' gradients at the cut."""
        if self.shared:
            with _whole_cut():
                torch.autograd.backward(self.shared, weighted_sum(self.at_shared, weights))


@contextlib.contextmanager
def _whole_cut() -> Iterator[None]:
    """Say what it means that a task's way back has met another's beside the cut."""
    try:
        yield
    except RuntimeError as error:
        if "second time" not in str(error):
            raise
        raise ValueError(
            "the tasks share more than the tensors named as shared: name every tensor that leaves the "
            "shared part, or give the shared parameters instead"
        ) from error


def weighted_sum(gradients: Sequence[Sequence[Tensor]], weights: Sequence[float]) -> list[Tensor]:
    """Gradients of T tasks, [T] lists of like shapes -> one list."""
    total = torch._foreach_mul(list(gradients[0]), float(weights[0]))
    for weight, own in zip(weights[1:], gradients[1:], strict=True):
        torch._foreach_add_(total, list(own), alpha=float(weight))
    return total


def accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Add to the parameters' `.grad`."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def mean_over_processes(
    tensors: Sequence[Tensor], process_group: distributed.ProcessGroup | None
) -> list[Tensor]:
    """All-reduce: the means of like tensors over the processes of a group; the tensors themselves without
    one."""
    if process_group is None:
        return list(tensors)
    means = [tensor.detach().clone() for tensor in tensors]
    for mean in means:
        distributed.all_reduce(mean, group=process_group)
        mean /= process_group.size()
    return means


def _check_apart(shared: Sequence[Tensor]) -> None:
    inner = [node for tensor in shared if not tensor.is_leaf for node, _ in _node(tensor).next_functions]
    if len(shared) > 1 and not {_node(tensor) for tensor in shared}.isdisjoint(_walk(inner, set())):
        raise ValueError(
            "a shared tensor is computed from another one, whose gradient would count twice: hand each on "
            "to the tasks as a view of its own, `tensor.view_as(tensor)`, and name these"
        )


def _leaves(outputs: Iterable[Tensor], stop: Iterable[Tensor]) -> list[Tensor]:
    """The leaves that need a gradient in the graphs of `outputs`, not going on behind the tensors `stop`."""
    nodes = _walk([_node(tensor) for tensor in outputs], {_node(tensor) for tensor in stop})
    return [node.variable for node in nodes if hasattr(node, "variable")]  # where a gradient is accumulated


def _walk(nodes: Iterable[Node | None], seen: set[Node]) -> list[Node]:
    """The nodes of an autograd graph from `nodes` on, each once, without `seen` and what lies behind."""
    waiting, found = list(nodes), []
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            found.append(node)
            waiting += [after for after, _ in reversed(node.next_functions)]
    return found


def _node(tensor: Tensor) -> Node:
    return get_gradient_edge(tensor).node


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Cosine of the angle between two gradients, each a list of tensors; nan if one of them is zero."""
    dot = sum(torch.sum(x * y) for x, y in zip(a, b, strict=True))
    return float(dot / (_norm(a) * _norm(b)))


def magnitude_similarity(norm_a: float, norm_b: float) -> float:
    """2ab / (a^2 + b^2): 1 for gradients of equal length, towards 0 as one outgrows the other.

    Yu et al. 2020 (Gradient Surgery, NeurIPS), definition 2.
    """
    return 2 * norm_a * norm_b / (norm_a**2 + norm_b**2) if norm_a or norm_b else float("nan")


def weighted_shares(weights: Tensor, norms: Tensor) -> Tensor:
    """What part of the summed weighted gradient length is each task's: [T] -> [T], summing to 1."""
    weighted = weights * norms
    return weighted / weighted.sum()


def conflict_by_stage(
    stages: Mapping[str, nn.Module],
    gradients: Sequence[Sequence[Tensor]],
    tasks: Sequence[str],
    weights: Sequence[float],
) -> list[dict]:
    """How two tasks' gradients stand to each other in every shared stage.

    gradients: for each of the two `tasks` its unweighted gradients at the parameters of `stages`, in order.
    One row a (stage, kind), kind `conv` or `norm` (normalisation parameters apart, because they head
    the list of conflicts in Recon, Shi et al. 2023): cosine, conflict (cosine < 0, Yu et al. 2020),
    the norms of the unweighted gradients, their magnitude similarity, and the first task's share of the
    weighted length.
    """
    named = [(stage, p) for stage, module in stages.items() for p in module.parameters()]
    (first, second), (weight_a, weight_b) = tasks, weights
    rows = []
    for stage in stages:
        for kind in ("conv", "norm"):
            # Convolutions here carry no bias: what has one dimension belongs to a normalisation.
            chosen = [i for i, (s, p) in enumerate(named) if s == stage and (p.ndim == 1) == (kind == "norm")]
            a, b = ([own[i] for i in chosen] for own in gradients)
            norm_a, norm_b = float(_norm(a)), float(_norm(b))
            angle = cosine(a, b)
            total = weight_a * norm_a + weight_b * norm_b
            rows.append(
                {
                    "stage": stage,
                    "kind": kind,
                    "cosine": angle,
                    f"norm_{first}": norm_a,
                    f"norm_{second}": norm_b,
                    "magnitude_similarity": magnitude_similarity(norm_a, norm_b),
                    "conflict": int(angle < 0),
                    f"share_{first}": weight_a * norm_a / total if total else float("nan"),
                }
            )
    return rows


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the concatenation, in single precision at least: squares leave float16's range."""
    wide = [t if t.dtype in (torch.float32, torch.float64) else t.float() for t in tensors]
    return torch.stack(torch._foreach_norm(wide)).norm()
