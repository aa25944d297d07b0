"""Mistakes in nested keys, files that are not there, folders in place of files: one line each, before any work."""

import gc
import shutil

import pytest

from ffhqref.cli.main import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("restore restorer=[nlm] restorer.nlm.strength=abc", "restorer.nlm.strength=abc: expected a number"),
        ("restore +restorer.x={name:3}", "unknown restorer '3'"),
        ("restore restorer=[refldm-tiny] restorer.refldm-tiny.batch_size=abc", "batch_size=abc: expected a whole numb"),
        ("score metric=[ids_refldm] metric.ids_refldm.path=[3]", "metric.ids_refldm.path=[3]: expected a path or null"),
        ("score metric=[ids_refldm] metric.ids_refldm.path=gone.onnx", "metric 'ids_refldm': weights 'webface-r50'"),
        ("score metric=[ids] embedder=onnx embedder.path=gone.onnx", "metric 'ids': embedder: no such file: gone.onnx"),
        ("score metric=[ids] embedder=insightface embedder.path=[3]", "embedder.path=[3]: expected a path or null"),
        ("score metric=[ids] embedder.crop=refldm_centre", "'refldm_centre'. Did you mean 'refldm_center'?"),
        ("score metric=[age_error] ages.path=[a]", "ages.path=['a']: expected a path or null"),
        ("report merge=[w,null]", "merge[1]=null: expected a text"),
        ("report merge=[w]", "has no folder 'tables'"),
        ("report report.quality=[[3]]", "report.quality[0]=[3]: expected a text"),
        ("report report.gate={metric:psnr,threshold:abc}", "report.gate.threshold=abc: expected a number"),
        (
            "report report.gate={metric:psnr,threshold:1,more:2}",
            "unknown key 'report.gate.more'. Its options: metric, thr",
        ),
        ("score metric=[psnr] metric.psnr.colour=[3]", "metric.psnr.colour=[3]: expected a text"),
        ("weights fetch gfpgann", "no weight file is registered as 'gfpgann'. Did you mean 'gfpgan-1.4'?"),
        ("weights --folder a_file fetch gfpgan-1.3", "weights 'gfpgan-1.3'"),
        ("zoo gfpgann", "unknown restorer 'gfpgann'. Did you mean 'gfpgan'?"),
        ("zoo lq --markdown .", "zoo: --markdown .: a folder; expected a file to write"),
        ("zoo lq --markdown a_file/zoo.md", "a_file"),
        ("audit audit.worst=abc", "audit.worst=abc: expected a whole number of at least 0"),
        ("audit audit.worst=-1", "audit.worst=-1: expected a whole number of at least 0"),
        ("audit audit.second=3", "audit.second=3: expected options, audit.second.KEY=VALUE"),
        ("audit audit.second.max_distance=abc", "audit.second.max_distance=abc: expected a number or null"),
        ("audit build.max_distance=abc", "build.max_distance=abc: expected a number"),
        ("validate release=[3]", "release=[3]: expected a path or null"),
        ("validate validate=3", "validate=3: expected options, validate.KEY=VALUE"),
        ("validate validate.first=abc", "validate.first=abc: expected a whole number"),
        ("validate validate.csv=.", "validate.csv=.: a folder; expected a file to write"),
        ("validate release=.", ".: no reference mapping; expected"),
        ("synthesize synthesis.min_similarity=abc", "synthesis.min_similarity=abc: expected a number or null"),
        ("synthesize synthesis.vectors=3", "synthesis.vectors=3: expected options, synthesis.vectors.KEY=VALUE"),
        ("synthesize synthesis.vectors.table=[3]", "synthesis.vectors.table=[3]: expected a path or null"),
        ("synthesize synthesis.normals=[3]", "synthesis.normals=[3]: expected a path or null"),
        ("synthesize synthesis.renderer=3", "synthesis.renderer=3: expected options"),
        ("synthesize synthesis.splits=trian", "synthesis.splits=trian: expected a list, [first,second]"),
        ("synthesize contamination.benchmarks=foo", "contamination.benchmarks=foo: expected a list, [first,second]"),
        ("synthesize synthesis.renderer.strenth=1", "synthesis.renderer.strenth'. Did you mean 'strength'?"),
        ("prepare train.faceme=3", "train.faceme=3: expected options, train.faceme.KEY=VALUE"),
        ("prepare train.faceme.photomaker=[3]", "train.faceme.photomaker=[3]: expected a path or null"),
        ("prepare train.faceme.faces=3", "train.faceme.faces=3: expected options"),
        ("prepare train.faceme.synthetic=gone", "train.faceme.synthetic=gone: no such folder"),
        ("prepare train.splits=train", "train.splits=train: expected a list, [first,second]"),
    ],
)
def test_a_mistake_is_one_line_and_no_traceback(line, said, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "a_file").write_text("no folder, no network, no table\n")
    gc.collect()  # locks of commands before this one
    assert main(line.split()) == 2
    found = capfd.readouterr()
    assert said in found.err
    assert found.err.count("\n") == 1
    assert not found.out
    assert "Error" not in found.err, "told in words"


def test_a_split_that_does_not_exist_is_told(built, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    gc.collect()
    shutil.copytree(built, tmp_path / "w")
    assert main(["prepare", "root=w", "train.splits=[trian]"]) == 2
    assert "train.splits[0]=trian: expected train, val or test. Did you mean 'train'?" in capfd.readouterr().err
