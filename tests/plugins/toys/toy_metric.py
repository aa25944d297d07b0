"""A metric: mean absolute difference."""

from ffhqref.metrics.base import Metric


class Difference(Metric):
    """Lower is better."""

    higher_is_better = False

    def __init__(self, scale: float = 255.0) -> None:
        self.scale = scale
        self.signature = f"toy difference x {scale:g}, version 1"

    def __call__(self, batch):
        """Return float64 [B]."""
        return (batch.output - batch.gt).abs().mean(dim=(1, 2, 3)).double().numpy() * self.scale
