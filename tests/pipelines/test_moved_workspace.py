"""A workspace and a weight file that were moved are the same; a weight file that was replaced is another."""

import shutil

from safetensors import safe_open
from safetensors.torch import save_file

from ffhqref.cli.main import main
from ffhqref.store.tables import read_table
from ffhqref.zoo.refldm.tiny import WEIGHTS

from .conftest import build_arguments

WHAT = ("benchmark=[severe]", "limit=1", "engine.workers=0", "metric=[psnr]", "restorer=[refldm]", "device=cpu",
        "+restorer.refldm.steps=1", "report.n_bootstrap=100", "report.max_cases=1")  # fmt: skip


def test_what_was_moved_is_not_done_again_and_what_was_replaced_is(built, few_faces, sample_folder, tmp_path, capsys,
                                                                   monkeypatch):  # fmt: skip
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "first", tmp_path / "elsewhere" / "second"
    shutil.copytree(built, first)
    net, moved = tmp_path / "net.safetensors", tmp_path / "elsewhere" / "another_name.safetensors"
    shutil.copy(WEIGHTS, net)

    def run(root, weights, pipeline="run"):
        everything = (*build_arguments(few_faces, sample_folder), *WHAT)
        status = main([pipeline, f"root={root}", *everything, f"restorer.refldm.refldm_ckpt={weights}"])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.err, said.out, list(read_table(root, "restorations")["output_sha256"])

    err, _, before = run(first, net)
    assert "restore-refldm: 1 to do" in err
    assert "score: 1 to do" in err
    second.parent.mkdir()
    first.rename(second)
    net.rename(moved)
    journals = {path.name: path.read_bytes() for path in (second / "journal").iterdir() if path.name[:2] != "re"}
    err, out, again = run(second, "elsewhere/another_name.safetensors")
    assert "to do" not in err
    assert again == before
    assert str(second / "report" / "report.html") in out
    assert str(first) not in err + out
    assert {name: (second / "journal" / name).read_bytes() for name in journals} == journals
    assert str(first) not in (second / "report" / "report.html").read_text()

    with safe_open(moved, "pt") as stream:
        tensors, facts = {name: stream.get_tensor(name) * 0.9 for name in stream.keys()}, stream.metadata()  # noqa: SIM118
    save_file(tensors, moved, facts)
    err, _, other = run(second, moved, "restore")
    assert "restore-refldm: 1 to do" in err
    assert other != before
