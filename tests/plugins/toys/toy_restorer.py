"""A restorer: a shade of grey."""

from ffhqref.restorers.base import Restorer, RestorerInfo


class Shade(Restorer):
    """Darkens."""

    info = RestorerInfo("shade", "darker", licence="CC0")

    def __init__(self, amount: float = 0.5) -> None:
        self.amount = amount

    def restore(self, batch):
        """Return float32 [B, 3, H, W] in 0..1."""
        return batch.lq * self.amount
