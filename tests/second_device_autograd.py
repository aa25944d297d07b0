"""Autograd's engine for tensors of the second device (second_device.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def backward(original: Callable[..., Any], kind: type[torch.Tensor]) -> Callable[..., Any]:
    """Return what stands for autograd's engine, whose queues, threads and streams know real devices only.

    The formulas of the operations are autograd's own; here is only the order in which they are called. Hooks on
    tensors are not.
    """

    def run(roots, gradients, keep, create_graph, inputs=(), allow_unreachable=True, accumulate_grad=False):
        if not any(isinstance(root, kind) for root in roots):
            return original(roots, gradients, keep, create_graph, inputs, allow_unreachable, accumulate_grad)
        edge = torch.autograd.graph.get_gradient_edge
        wanted = {(found.node, found.output_nr): at for at, found in enumerate(map(edge, inputs))}
        results: list[Any] = [None] * len(wanted)
        starts = [(*edge(root)[:2], gradient) for root, gradient in zip(roots, gradients, strict=True)]
        waiting = _uses([node for node, _, _ in starts])
        sums: dict[Any, list[Any]] = {node: [None] * max(1, len(node._input_metadata)) for node in waiting}
        for node, number, gradient in starts:
            _add(sums, node, number, gradient)
        ready = [node for node, uses in waiting.items() if not uses]
        with torch.set_grad_enabled(create_graph):
            while ready:
                node = ready.pop()
                arrived = sums.pop(node)
                for number, gradient in enumerate(arrived):
                    if (node, number) in wanted:
                        results[wanted[node, number]] = gradient
                if hasattr(node, "variable"):
                    if accumulate_grad and arrived[0] is not None and (not wanted or (node, 0) in wanted):
                        leaf = node.variable
                        leaf.grad = arrived[0] if leaf.grad is None else leaf.grad + arrived[0]
                    continue
                made = (None,) * len(node.next_functions)
                if any(gradient is not None for gradient in arrived):
                    own = isinstance(node, torch.autograd.function.BackwardCFunction)
                    made = node.apply(*arrived) if own else node(*arrived)
                made = made if isinstance(made, tuple) else (made,)
                for (after, number), gradient in zip(node.next_functions, made, strict=False):
                    if after is not None:
                        if gradient is not None:
                            _add(sums, after, number, gradient)
                        waiting[after] -= 1
                        if not waiting[after]:
                            ready.append(after)
        return tuple(results)

    return run


def _uses(roots: list[Any]) -> dict[Any, int]:
    """Return every node under these, with how many times others of them point to it."""
    found = dict.fromkeys(roots, 0)
    stack = list(found)
    while stack:
        for after, _ in stack.pop().next_functions:
            if after is not None:
                if after not in found:
                    found[after] = 0
                    stack.append(after)
                found[after] += 1
    return found


def _add(sums: dict[Any, list[Any]], node: Any, number: int, gradient: torch.Tensor) -> None:
    """Add a gradient where it arrives, in the shape, type and place of what it belongs to, as the engine does."""
    about = node._input_metadata[number]
    if gradient.device != about.device:
        raise RuntimeError(f"{node} got a gradient on {gradient.device}, expected {about.device}")
    gradient = gradient.sum_to_size(about.shape).to(about.dtype)
    before = sums[node][number]
    sums[node][number] = gradient if before is None else before + gradient
