"""Images of a case that are the same, or show the same, where they must not: counted and told."""

import shutil

import pytest
from PIL import Image

from ffhqref.cases.compare import CompareRow, CompareStage
from ffhqref.cli.main import main
from ffhqref.core.images import read_rgb, save_png


@pytest.fixture(scope="module")
def faces(few_faces):
    return sorted(few_faces.glob("*.jpg"))[:4]


@pytest.fixture
def root(built, tmp_path):
    shutil.copytree(built, tmp_path / "w")
    return tmp_path / "w"


@pytest.mark.parametrize(("quality", "told"), [(None, True), (98, True), (20, False)])
def test_low_quality_images_that_are_their_target(root, faces, tmp_path, capsys, quality, told):
    """Byte for byte, or encoded again so well that nothing is to restore."""
    for path in faces:
        image = read_rgb(path, 512)
        save_png(tmp_path / "gt" / f"{path.stem}.png", image)
        (tmp_path / "lq").mkdir(exist_ok=True)
        if quality is None:
            save_png(tmp_path / "lq" / f"{path.stem}.png", image)
        else:
            Image.fromarray(image).save(tmp_path / "lq" / f"{path.stem}.jpg", quality=quality)
    mine = f"+benchmark.mine={{gt_folder: {tmp_path}/gt, lq_folder: {tmp_path}/lq}}"
    assert main(["degrade", f"root={root}", "benchmark=[]", mine]) == 0
    said = capsys.readouterr().err
    assert ("4 low-quality images are their target, pixel by pixel or nearly so" in said) == told


def test_references_that_show_the_low_quality_image(root, faces, tmp_path, capsys):
    for path in faces:
        small = Image.fromarray(read_rgb(path, 512)).resize((128, 128)).resize((512, 512))
        for folder in ("lq", f"refs/{path.stem}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        small.save(tmp_path / "lq" / f"{path.stem}.png")
        small.save(tmp_path / "refs" / path.stem / "1.jpg", quality=90)
    mine = f"+benchmark.mine={{lq_folder: {tmp_path}/lq, reference_folder: {tmp_path}/refs}}"
    assert main(["degrade", f"root={root}", "benchmark=[]", mine]) == 0
    assert "4 references show the low-quality image itself, pixel by pixel or nearly so" in capsys.readouterr().err


def test_what_cannot_be_read_is_not_compared(faces, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (result,) = CompareStage().process([CompareRow("a", str(faces[0]), "1", str(tmp_path / "broken.png"), "2")])
    assert not result.equal
    assert not result.alike
