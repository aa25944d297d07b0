"""Work-arounds for broken installations that users meet, each in one place."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_kept: list[Any] = []  # operator libraries must stay referenced for as long as their operators are used


def ensure_torchvision() -> str:
    """Make ``import torchvision`` work when its compiled part does not fit the installed torch.

    A torchvision built for CUDA next to a CPU build of torch fails on import, and takes pyiqa, facexlib, lpips,
    spandrel, timm, torchmetrics and the model classes of diffusers and transformers with it, although they need
    none of its compiled operators but ``nms``. Call this before importing any of them.

    Returns:
        ``"absent"`` (not installed), ``"native"`` (imports as it is), or ``"shimmed"`` (now imports; ``nms`` runs
        in plain torch, image reading by torchvision stays off).
    """
    if importlib.util.find_spec("torchvision") is None:
        return "absent"
    if "torchvision" in sys.modules:
        return "shimmed" if _kept else "native"
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return "native"
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    _kept.append(library)
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl(operator, _nms, "CompositeExplicitAutograd")
    import torchvision.ops.boxes

    torchvision.ops.boxes._assert_has_ops = lambda: None
    return "shimmed"


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Non-maximum suppression of boxes [N, 4] (x1, y1, x2, y2): indices kept, best score first."""
    import torch

    order = scores.argsort(descending=True, stable=True)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        low = torch.maximum(boxes[best, :2], boxes[order, :2])
        high = torch.minimum(boxes[best, 2:], boxes[order, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        order = order[overlap / (area[best] + area[order] - overlap) <= iou_threshold]
    return torch.stack(kept) if kept else torch.empty(0, dtype=torch.long)
