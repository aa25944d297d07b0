"""Outputs that are the ground truth or a reference, by pixels, are counted and told."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, resize
from ffhqref.engine import LocalEngine
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.metrics.copied import CopiedStage, copied_outputs
from ffhqref.metrics.scoring import ScoreRow


@pytest.fixture
def case(sample_folder, tmp_path):
    """Make the rows of one case: its ground truth, one reference, and the given outputs by method."""
    gt, reference = (sample_folder / name for name in ("00042.jpg", "00087.jpg"))

    def made(references=(reference,), **outputs):
        hashes = tuple(map(sha256_file, references))
        common = (str(gt), sha256_file(gt), tuple(map(str, references)), hashes)
        rows = [ScoreRow(GROUND_TRUTH, "b", "0", *common[:2], *common)]
        files = [(name, str(path), sha256_file(path)) for name, path in outputs.items()]
        return rows + [ScoreRow(name, "b", "0", path, digest, *common) for name, path, digest in files]

    made.gt, made.reference = read_rgb(gt, 512), read_rgb(reference, 512)
    return made


def saved(path, image, **options):
    Image.fromarray(image).save(path, **options)
    return path


def told(rows, tmp_path):
    return copied_outputs(rows, engine=LocalEngine(0), journal_dir=tmp_path / "journal")


def test_what_is_copied(case, tmp_path):
    noise = np.random.default_rng(0).normal(0, 4, case.gt.shape)
    restored = np.clip(np.rint(case.gt + noise), 0, 255).astype(np.uint8)  # 36 dB: better than any restoration
    outputs = {
        "equal": saved(tmp_path / "equal.png", case.gt),
        "jpeg": saved(tmp_path / "jpeg.jpg", case.gt, quality=97),
        "pasted": saved(tmp_path / "pasted.png", case.reference),
        "squeezed": saved(tmp_path / "squeezed.jpg", resize(case.reference, 256), quality=60),
        "restored": saved(tmp_path / "restored.png", restored),
        "blurred": saved(tmp_path / "blurred.png", resize(resize(case.gt, 64), 512)),
    }
    truth, reference = "1 of 1 outputs are the ground truth itself", "1 of 1 outputs are one of the references"
    assert told(case(**outputs), tmp_path) == {
        "b": {"equal": truth, "jpeg": truth, "pasted": reference, "squeezed": reference}
    }


def test_a_reference_that_is_the_ground_truth(case, tmp_path):
    rows = case(references=[saved(tmp_path / "copy.jpg", case.gt, quality=80)], a=saved(tmp_path / "a.png", case.gt))
    assert told(rows, tmp_path) == {
        "b": {
            "a": "1 of 1 outputs are the ground truth itself",
            GROUND_TRUTH: "1 of 1 cases have a reference that is a copy of the ground truth",
        }
    }


def test_a_second_run_reads_nothing_and_what_cannot_be_read_is_no_copy(case, tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", case.gt)
    rows = case(a=path)
    first = told(rows, tmp_path)
    monkeypatch.setattr(CopiedStage, "process", lambda self, rows: pytest.fail("computed again"))
    assert told(rows, tmp_path) == first
    monkeypatch.undo()
    path.write_bytes(b"")
    assert told(rows, tmp_path / "other") == {}
