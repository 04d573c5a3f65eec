"""The tasks' gradients where a network is shared: computed up to the cut, measured, put together again.

The *cut* is the set of tensors that leave the shared part. Each task's loss is run back to the cut and into
the task's own parameters (the heads are disjoint, so this costs what one joint backward costs); then the
shared part is run back once, from the weighted sum at the cut. By the chain rule the result is that of one
joint backward of the weighted loss.

Nothing here knows the network: it works on the autograd graph of the losses. T tasks.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.autograd.graph import Node, get_gradient_edge


@dataclass
class TaskGradients:
    """The unweighted gradients of T losses, up to the cut.

    shared: the tensors of the cut. at_shared: [T] lists, each task's gradient at them.
    own: [T] lists of pairs (parameter, gradient), of the parameters between the cut and the task's loss.
    """

    shared: list[Tensor]
    at_shared: list[list[Tensor]]
    own: list[list[tuple[Tensor, Tensor]]]

    @classmethod
    def of(cls, losses: Sequence[Tensor], shared: Sequence[Tensor]) -> "TaskGradients":
        """Run each of `losses` (scalars) back to `shared`: the tensors that leave the shared part, or the
        shared parameters themselves, which costs a pass through the shared part for every task.

        Tensors of `shared` that need no gradient (images, where nothing is shared) are left out. No `.grad`
        changes yet. ValueError if the tasks share more than `shared`, or if one of these tensors is computed
        from another, whose gradient would then count twice.
        """
        shared = [tensor for tensor in shared if tensor.requires_grad]
        _check_independent(shared)
        through_one_graph = any(tensor.is_leaf for tensor in shared)
        at_shared, own = [], []
        for i, loss in enumerate(losses):
            leaves = _leaves([loss], shared)
            keep = through_one_graph and i + 1 < len(losses)
            with _explain_incomplete_cut():
                grads = torch.autograd.grad(loss, [*shared, *leaves], retain_graph=keep, allow_unused=True)
            at_cut, at_leaves = grads[: len(shared)], grads[len(shared) :]
            at_cut = [torch.zeros_like(s) if g is None else g for g, s in zip(at_cut, shared, strict=True)]
            at_shared.append(at_cut)
            own.append([pair for pair in zip(leaves, at_leaves, strict=True) if pair[1] is not None])
        return cls(shared, at_shared, own)

    def shared_parameters(self) -> list[Tensor]:
        """The parameters behind the cut, or the shared ones that `of` was given."""
        return _leaves(self.shared, [])

    def at(self, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
        """The gradients of each task at shared `parameters`: [T] lists. Costs a backward pass from the cut to
        them for each task; the graph is kept."""
        places = {id(tensor): i for i, tensor in enumerate(self.shared)}
        if all(id(p) in places for p in parameters):
            return [[at[places[id(p)]] for p in parameters] for at in self.at_shared]
        per_task = []
        for at in self.at_shared:
            with _explain_incomplete_cut():
                grads = torch.autograd.grad(self.shared, parameters, at, retain_graph=True, allow_unused=True)
            if any(grad is None for grad in grads):
                raise ValueError("a parameter of `layer` is not behind the shared tensors: take one that is")
            per_task.append(list(grads))
        return per_task

    def norms(self, tensors: Sequence[Tensor], process_group: distributed.ProcessGroup | None) -> Tensor:
        """The norm of each task's gradient at shared parameters, or at tensors of the cut: [T], float32 or
        wider.

        process_group: of the gradient of the whole batch, whose loss is the mean over P processes. Gradients
        at parameters are averaged. Those at the cut are of different frames in each process, so they stand
        side by side, each divided by P: sqrt(sum_p |g_p|^2) / P.
        """
        if process_group is None:
            return torch.stack([norm(own) for own in self.at(tensors)])
        norms = []
        for own in self.at(tensors):
            at_parameters = [g for g, tensor in zip(own, tensors, strict=True) if tensor.is_leaf]
            at_cut = [g for g, tensor in zip(own, tensors, strict=True) if not tensor.is_leaf]
            parts = mean_over_processes(at_parameters, process_group)
            if at_cut:
                (mean_square,) = mean_over_processes([norm(at_cut).square()], process_group)
                parts.append((mean_square / process_group.size()).sqrt())
            norms.append(norm(parts))
        return torch.stack(norms)

    def bypassing(self, losses: Sequence[Tensor], layer: Sequence[Tensor]) -> list[int]:
        """The places in `shared` of tensors that a loss depends on, but no parameter of `layer` is behind:
        what passes there does not reach the layer. Where `shared` holds parameters, it cannot be told."""
        used = set(_walk([_node(loss) for loss in losses], set()))
        wanted = {_node(parameter) for parameter in layer}
        return [
            place
            for place, tensor in enumerate(self.shared)
            if not tensor.is_leaf
            and _node(tensor) in used
            and wanted.isdisjoint(_walk([_node(tensor)], set()))
        ]

    def accumulate_own(self, weights: Sequence[float]) -> None:
        """Add each task's gradient, times its weight, to the `.grad` of its own parameters."""
        for weight, pairs in zip(weights, self.own, strict=True):
            if pairs:
                scaled = torch._foreach_mul([gradient for _, gradient in pairs], float(weight))
                accumulate([parameter for parameter, _ in pairs], scaled)

    def backward_shared(self, weights: Sequence[float]) -> None:
        """Run the shared part back once, from the weighted sum of the tasks' gradients at the cut."""
        if self.shared:
            with _explain_incomplete_cut():
                torch.autograd.backward(self.shared, weighted_sum(self.at_shared, weights))


@contextlib.contextmanager
def _explain_incomplete_cut() -> Iterator[None]:
    """Explain PyTorch's error where two tasks' graphs meet outside the cut."""
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
    """The sum of T tasks' gradients, [T] lists of the same shapes, times their weights: one list."""
    total = torch._foreach_mul(list(gradients[0]), float(weights[0]))
    for weight, own in zip(weights[1:], gradients[1:], strict=True):
        torch._foreach_add_(total, list(own), alpha=float(weight))
    return total


def gradients_at(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of `loss` at `parameters`, zero where it does not depend on them; the graph is kept."""
    if not loss.requires_grad:  # nothing to learn, as no box in half a batch
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Add to the parameters' `.grad`."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def mean_over_processes(
    tensors: Sequence[Tensor], process_group: distributed.ProcessGroup | None
) -> list[Tensor]:
    """All-reduce: the means of tensors over the processes of a group; without one the tensors themselves."""
    if process_group is None:
        return list(tensors)
    means = [tensor.detach().clone() for tensor in tensors]
    for mean in means:
        distributed.all_reduce(mean, group=process_group)
        mean /= process_group.size()
    return means


def _check_independent(shared: Sequence[Tensor]) -> None:
    behind = [node for tensor in shared if not tensor.is_leaf for node, _ in _node(tensor).next_functions]
    if len(shared) > 1 and not {_node(tensor) for tensor in shared}.isdisjoint(_walk(behind, set())):
        raise ValueError(
            "a shared tensor is computed from another one, whose gradient would count twice: hand each on "
            "to the tasks as a view of its own, `tensor.view_as(tensor)`, and name these"
        )


def _leaves(outputs: Iterable[Tensor], stop: Iterable[Tensor]) -> list[Tensor]:
    """The leaves that need a gradient in the graphs of `outputs`, as far back as the tensors `stop`."""
    nodes = _walk([_node(tensor) for tensor in outputs], {_node(tensor) for tensor in stop})
    return [node.variable for node in nodes if hasattr(node, "variable")]  # AccumulateGrad nodes


def _walk(nodes: Iterable[Node | None], visited: set[Node]) -> list[Node]:
    """The nodes of an autograd graph from `nodes` back, each once; not through those in `visited`."""
    stack, reached = list(nodes), []
    while stack:
        node = stack.pop()
        if node is not None and node not in visited:
            visited.add(node)
            reached.append(node)
            stack += [after for after, _ in reversed(node.next_functions)]
    return reached


def _node(tensor: Tensor) -> Node:
    return get_gradient_edge(tensor).node


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of the concatenation, in float32 at least, for squares overflow float16."""
    wide = [t if t.dtype in (torch.float32, torch.float64) else t.float() for t in tensors]
    return torch.stack(torch._foreach_norm(wide)).norm()
