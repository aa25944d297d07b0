"""An engine: one process, and each batch is counted."""

from pathlib import Path

from ffhqref.engine import LocalEngine


class Counting(LocalEngine):
    """Keeps count in a file."""

    def __init__(self, file: str = "batches") -> None:
        super().__init__(0)
        self.file = Path(file)

    def imap(self, stage, batches):
        """Yield (index of the batch, its results)."""
        for item in super().imap(stage, batches):
            with self.file.open("a") as stream:
                stream.write(f"{stage.name}\n")
            yield item
