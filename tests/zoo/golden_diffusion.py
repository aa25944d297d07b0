"""What the golden tests of DifFace, DR2 and PGDiff share: which file is which network's, and the steps of a chain."""

from .golden_tools import read_json


def file_with(folder, tensor):
    """Return the file whose full-size layout has that tensor, and the layout."""
    for name, layout in read_json(folder / "keys_full.json").items():
        if tensor in layout:
            return folder / name.partition(":")[0], layout
    raise AssertionError(tensor)


def recorded_steps(restorer):
    """Return a list that fills with the steps of the restorer's chain as it runs."""
    steps, sample = [], restorer.sample

    def keep_steps(*given):
        for step in sample(*given):
            steps.append(step)
            yield step

    restorer.sample = keep_steps
    return steps


def recorded_chain(restorer, batch, draws):
    """Run the restorer; return the image at its own side, the one at the input's, and the steps in between."""
    made, restored, steps = [], restorer.restored, recorded_steps(restorer)

    def keep_picture(*given):
        made.append(restored(*given))
        return made[0]

    restorer.restored = keep_picture
    picture = restorer.restore(batch, draws)
    return made[0], picture, steps
