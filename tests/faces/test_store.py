"""Embeddings at scale: the same vectors as one by one, and nothing lost or wrong whenever the process dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from ffhqref.core.errors import ConfigError, TableError
from ffhqref.core.hashing import sha256_bytes, sha256_file
from ffhqref.core.images import read_rgb
from ffhqref.core.lines import checked_line
from ffhqref.datasets.stage import ImageRow, ImageStage, file_rows
from ffhqref.engine import LocalEngine
from ffhqref.faces import embed, make_embedder
from ffhqref.faces.stage import BATCH, EmbedStage
from ffhqref.faces.store import EmbeddingStore, embed_images, read_faces
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store import tables

ONNX_BATCHES = 3


def tiny_network(path: Path) -> Path:
    """A real ONNX network: 112 px faces to 8 numbers by pooling and one matrix."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(5).normal(size=(3 * 16, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["x"], ["pooled"], kernel_shape=[28, 28], strides=[28, 28]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["vectors"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, sample_folder):
    """A folder of images of the sample and its rows, three and a half batches."""
    root = tmp_path_factory.mktemp("pictures")
    rows = []
    for path in sorted(sample_folder.glob("*.jpg"))[: ONNX_BATCHES * BATCH + BATCH // 2]:
        shutil.copy(path, root / path.name)
        rows.append(ImageRow(path.stem, path.name, sha256_file(path)))
    return root, rows


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("network") / "tiny.onnx")


def stage_of(pictures, network):
    return EmbedStage(pictures[0], "onnx", {"path": str(network)}, "ffhq_template")


def one_by_one(pictures, name, **options):
    embedder = make_embedder(name, **options)
    return np.concatenate(
        [embed(read_rgb(pictures[0] / row.path, 512)[None], embedder, "ffhq_template") for row in pictures[1]]
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_vectors_are_those_of_one_picture_at_a_time(pictures, network, tmp_path, threads):
    found = embed_images(stage_of(pictures, network), pictures[1], tmp_path, engine=LocalEngine(threads))
    assert found.image_ids == [row.image_id for row in pictures[1]]
    assert np.abs(found.vectors - one_by_one(pictures, "onnx", path=network)).max() < 1e-6
    assert not found.errors


def test_the_table_of_embeddings_holds_what_was_embedded(pictures, network, tmp_path):
    stage = stage_of(pictures, network)
    found = embed_images(stage, pictures[1][::-1], tmp_path, engine=LocalEngine(1))
    tables.write_table(tmp_path, "embeddings", found.frame(stage.signature))
    table = tables.read_table(tmp_path, "embeddings")
    assert set(table["embedder"]) == {stage.signature}
    read = Embeddings.of_table(table)
    assert read.image_ids.tolist() == sorted(found.image_ids)
    assert np.array_equal(read.vectors, found.vectors[np.argsort(found.image_ids)])
    assert len(Embeddings.of_table(table.head(0))) == 0


def test_dlib_in_processes_gives_the_same_vectors(pictures, tmp_path):
    rows = pictures[1][:6]
    stage = EmbedStage(pictures[0], "dlib", {}, "ffhq_template")
    stage.batch_size = 3
    found = embed_images(stage, rows, tmp_path, engine=LocalEngine(2))
    assert np.array_equal(found.vectors, one_by_one((pictures[0], rows), "dlib"))


def test_edgeface_equals_one_by_one(pictures, tmp_path, shared):
    path = shared / "models" / "edgeface_xs.onnx"
    rows = pictures[1][: BATCH + 3]
    stage = EmbedStage(pictures[0], "onnx", {"path": str(path)}, "ffhq_template")
    found = embed_images(stage, rows, tmp_path, engine=LocalEngine(2))
    assert np.abs(found.vectors - one_by_one((pictures[0], rows), "onnx", path=path)).max() < 1e-6


def test_a_second_run_computes_nothing_and_changes_nothing(pictures, network, tmp_path):
    stage = stage_of(pictures, network)
    first = embed_images(stage, pictures[1], tmp_path, engine=LocalEngine(1))
    (folder,) = tmp_path.iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    stage.compute = stage.load = None  # would raise if anything were computed
    told = []
    second = embed_images(
        stage, pictures[1][::-1], tmp_path, progress=lambda *facts: told.append(facts), engine=LocalEngine(1)
    )
    assert np.array_equal(second.vectors[::-1], first.vectors)
    assert told == [("embed", len(pictures[1]), len(pictures[1]))]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    mapped = np.fromfile(folder / "vectors.f32", "<f4").reshape(-1, 8)
    assert np.array_equal(mapped, first.vectors)


def test_unreadable_pictures_are_told_and_tried_again(pictures, network, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(pictures[0], root)
    rows = pictures[1][:5]
    (root / rows[2].path).write_bytes(b"no image")
    stage = EmbedStage(root, "onnx", {"path": str(network)}, "ffhq_template")
    found = embed_images(stage, rows, tmp_path / "store", engine=LocalEngine(1))
    assert found.image_ids == [row.image_id for row in rows if row is not rows[2]]
    assert list(found.errors) == [rows[2].image_id]
    assert "changed since its hash was recorded" in found.errors[rows[2].image_id]
    shutil.copy(pictures[0] / rows[2].path, root / rows[2].path)
    again = embed_images(stage, rows, tmp_path / "store", engine=LocalEngine(1))
    assert again.image_ids == [row.image_id for row in rows]
    assert not again.errors


def test_equal_pictures_are_embedded_once(pictures, network, tmp_path):
    rows = [replace(pictures[1][0], image_id=name) for name in ("a", "b")]
    found = embed_images(stage_of(pictures, network), rows, tmp_path, engine=LocalEngine(1))
    assert found.image_ids == ["a", "b"]
    assert np.array_equal(found.vectors[0], found.vectors[1])
    with EmbeddingStore(tmp_path, stage_of(pictures, network).signature, 8) as store:
        assert len(store) == len(store.array) == 1


def test_signatures_do_not_mix(tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    for signature in ("a", "b"):
        with EmbeddingStore(tmp_path, signature, 4) as store:
            assert len(store) == 0
            store.append(list("wxyz"), list("1234"), vectors if signature == "a" else -vectors)
    with EmbeddingStore(tmp_path, "a", 4) as store:
        assert np.array_equal(store.gather(["4", "1"]), vectors[[3, 0]])
        with pytest.raises(KeyError):
            store.gather(["5"])


@pytest.mark.parametrize("file", ["manifest.jsonl", "vectors.f32"])
def test_cut_at_any_byte_keeps_whole_batches_only(tmp_path, file):
    """Whatever a crash leaves of either file, the store opens with whole batches, their vectors right."""
    whole = tmp_path / "whole"
    vectors = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    names = [f"{number:02d}" for number in range(6)]
    with EmbeddingStore(whole, "s", 3) as store:
        for start in range(0, 6, 2):
            store.append(names[start : start + 2], names[start : start + 2], vectors[start : start + 2])
        inside = store.folder.name
    size = (whole / inside / file).stat().st_size
    sizes = set()
    for length in range(size + 1):
        cut = tmp_path / "cut"
        shutil.copytree(whole, cut)
        os.truncate(cut / inside / file, length)
        with EmbeddingStore(cut, "s", 3) as store:
            known = len(store)
            sizes.add(known)
            assert known % 2 == 0
            assert np.array_equal(store.gather(names[:known]), vectors[:known])
            store.append(["new"], ["new"], np.ones((1, 3), np.float32))
        with EmbeddingStore(cut, "s", 3) as store:
            assert len(store) == known + 1
            assert np.array_equal(store.gather(["new", *names[:known]])[1:], vectors[:known])
        shutil.rmtree(cut)
    assert sizes == {0, 2, 4, 6}


def test_a_flipped_byte_costs_its_batch_and_those_after(tmp_path):
    vectors = np.ones((4, 3), np.float32)
    with EmbeddingStore(tmp_path, "s", 3) as store:
        store.append(["a", "b"], ["a", "b"], vectors[:2])
        store.append(["c", "d"], ["c", "d"], vectors[2:])
        path = store.folder / "vectors.f32"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    with EmbeddingStore(tmp_path, "s", 3) as store:
        assert "a" in store
        assert "c" not in store


def test_a_foreign_manifest_is_refused(tmp_path):
    with EmbeddingStore(tmp_path, "s", 3) as store:
        path = store.folder / "manifest.jsonl"
    path.write_bytes(checked_line({"format": 99}))
    with pytest.raises(TableError, match="delete its folder"):
        EmbeddingStore(tmp_path, "s", 3)


def test_killed_with_minus_nine_it_goes_on_and_equals_an_undisturbed_run(pictures, network, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(f"""
        import json, sys, time
        from pathlib import Path
        from ffhqref.datasets.stage import ImageRow
        from ffhqref.engine import LocalEngine
        from ffhqref.faces.stage import BATCH, EmbedStage
        from ffhqref.faces.store import embed_images

        stage = EmbedStage(Path({str(pictures[0])!r}), "onnx", {{"path": {str(network)!r}}}, "ffhq_template")
        rows = [ImageRow(**row) for row in json.loads(Path(sys.argv[1]).read_text())]
        slow = stage.compute
        stage.compute = lambda faces: (time.sleep(0.3), slow(faces))[1]
        embed_images(stage, rows, sys.argv[2], progress=lambda *facts: print(facts, flush=True), engine=LocalEngine(1))
        """)
    )
    (tmp_path / "rows.json").write_text(json.dumps([asdict(row) for row in pictures[1]]))
    command = [sys.executable, str(script), str(tmp_path / "rows.json"), str(tmp_path / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for _ in range(2):  # nothing done, then one batch
        process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stage = stage_of(pictures, network)
    told = []
    resumed = embed_images(
        stage,
        pictures[1],
        tmp_path / "killed",
        progress=lambda _, done, total: told.append((done, total)),
        engine=LocalEngine(1),
    )
    assert BATCH <= told[0][0] < len(pictures[1])
    whole = embed_images(stage, pictures[1], tmp_path / "whole", engine=LocalEngine(1))
    assert np.array_equal(resumed.vectors, whole.vectors)
    (killed,), (undisturbed,) = (tmp_path / "killed").iterdir(), (tmp_path / "whole").iterdir()
    for name in ("vectors.f32", "manifest.jsonl"):
        assert (killed / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded."""
    from PIL import Image

    files, open_image = [], Image.open

    def counted(source, **options):
        files.append(sha256_bytes(source.getvalue()))
        return open_image(source, **options)

    monkeypatch.setattr(Image, "open", counted)
    return files


def read_all(pictures, network, work, root=None):
    root = root or pictures[0]
    rows = file_rows(root, {row.image_id: row.path for row in pictures[1]})
    stage = EmbedStage(root, "onnx", {"path": str(network)}, "ffhq_template")
    facts = {"engine": LocalEngine(2), "journal_dir": work / "journal", "folder": work / "embeddings"}
    return read_faces(ImageStage(root), stage, rows, **facts)


def test_each_image_is_decoded_once_and_the_results_are_those_of_two_stages(pictures, network, tmp_path, decoded):
    checked, embedded = read_all(pictures, network, tmp_path)
    assert sorted(decoded) == sorted(row.sha256 for row in pictures[1])
    assert checked == [
        ImageStage(pictures[0]).process([row])[0]
        for row in file_rows(pictures[0], {row.image_id: row.path for row in pictures[1]})
    ]
    apart = embed_images(stage_of(pictures, network), pictures[1], tmp_path / "apart", engine=LocalEngine(1))
    assert embedded.image_ids == apart.image_ids
    assert np.array_equal(embedded.vectors, apart.vectors)
    decoded.clear()
    again, same = read_all(pictures, network, tmp_path)
    assert decoded == []
    assert again == checked
    assert np.array_equal(same.vectors, embedded.vectors)


def test_lost_vectors_are_made_again_and_a_broken_file_is_a_row(pictures, network, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(pictures[0], root)
    broken = pictures[1][3]
    (root / broken.path).write_bytes(b"no image")
    checked, embedded = read_all(pictures, network, tmp_path, root)
    assert [result.image_id for result in checked if result.error is not None] == [broken.image_id]
    assert checked[3].sha256 == sha256_bytes(b"no image")
    assert embedded.image_ids == [row.image_id for row in pictures[1] if row is not broken]
    shutil.rmtree(tmp_path / "embeddings")
    _, again = read_all(pictures, network, tmp_path, root)
    assert np.array_equal(again.vectors, embedded.vectors)


def test_vectors_that_are_known_are_not_made_again_when_the_journal_is_lost(pictures, network, tmp_path):
    checked, embedded = read_all(pictures, network, tmp_path)
    (manifest,) = (tmp_path / "embeddings").glob("*/manifest.jsonl")
    before = manifest.read_bytes()
    shutil.rmtree(tmp_path / "journal")
    again, same = read_all(pictures, network, tmp_path)
    assert again == checked
    assert np.array_equal(same.vectors, embedded.vectors)
    assert manifest.read_bytes() == before


def test_an_image_that_changes_between_hash_and_pixels_is_told(pictures, network, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(pictures[0], root)
    shutil.copy(root / pictures[1][1].path, root / pictures[1][0].path)
    stage = EmbedStage(root, "onnx", {"path": str(network)}, "ffhq_template")
    found = embed_images(stage, pictures[1][:2], tmp_path / "store", engine=LocalEngine(1))
    assert found.image_ids == [pictures[1][1].image_id]
    assert "changed since its hash was recorded" in found.errors[pictures[1][0].image_id]


def test_an_unknown_crop_is_refused_before_any_work(network, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown crop 'ffhq_templat'\. Did you mean 'ffhq_template'"):
        EmbedStage(tmp_path, "onnx", {"path": str(network)}, "ffhq_templat")
