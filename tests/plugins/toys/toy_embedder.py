"""An embedder: dlib's network on grey faces, with thresholds of its own."""

from ffhqref.faces.embedders import DlibEmbedder


class Grey(DlibEmbedder):
    """Forgets colours."""

    max_distance = 0.05
    min_distance = 0.004

    def __init__(self, channel: int = 1) -> None:
        super().__init__()
        self.channel = channel
        self.signature = f"toy-grey{channel}:{self.signature}"

    def __call__(self, faces):
        """Return float32 [B, 128] from uint8 RGB [B, 150, 150, 3]."""
        return super().__call__(faces[..., [self.channel] * 3].copy())
