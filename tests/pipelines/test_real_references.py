"""Real-world sets with references of their own, from folders of every layout to the report."""

from __future__ import annotations

import csv
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffhqref.store import tables

from ..command import Command
from .conftest import build_arguments

PLACES = {
    "lfw_test_ref": "{stem}/{k}.{ext}", "names": "kind{k}/{stem}.{ext}", "prefixes": "{stem}_{k}.{ext}",
    "buckets": "target_pose_0/target_pose_0_{k}/{stem}.{ext}", "pairs": "{stem}-of-{k}/x.{ext}",
}  # fmt: skip
"""Where the k-th reference of an image lies, by benchmark; ``people`` has a list and folders of people."""
STRANGER = {"buckets": "target_pose_0/target_pose_0_1/nobody.jpg", "names": "kind1/nobody.jpg"}


class World:
    """Four low-quality images, one that cannot be read, and references in every layout; every image's pixels."""

    def __init__(self, folder, sample_folder):
        self.folder = folder
        with (sample_folder / "metadata.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        mine = {}
        for row in rows:
            mine.setdefault(row["identity"], []).append((sample_folder / row["file"]).read_bytes())
        people = [pictures for pictures in mine.values() if len(pictures) >= 4][:4]
        self.lq = {f"face_{k}": blurred(pictures[0]) for k, pictures in enumerate(people)}
        first, second, third, _ = people
        self.references = {
            "face_0": [("jpg", first[1]), ("jpg", first[2]), ("jpg", first[3])],
            "face_1": [("png", b"no image"), ("jpg", second[1])],
            "face_2": [("webp", as_webp(self.lq["face_2"])), ("jpg", third[1])],
            "face_3": [],
        }
        self.stranger = people[3][1]
        (folder / "lq").mkdir()
        for stem, data in {**self.lq, "face_4": b"no image either"}.items():
            (folder / "lq" / f"{stem}.png").write_bytes(data)
        for name, place in PLACES.items():
            for stem, pictures in self.references.items():
                for k, (ext, data) in enumerate(pictures):
                    self.write(f"{name}/{place.format(stem=stem, k=k, ext=ext)}", data)
            self.write(f"{name}/{STRANGER.get(name, 'nobody/1.jpg')}", self.stranger)
        lines = [
            f"{stem}.png,{PLACES['pairs'].format(stem=stem, k=k, ext=ext)}\n"
            for stem, pictures in self.references.items()
            for k, (ext, _) in enumerate(pictures)
        ]
        (folder / "pairs.csv").write_text("lq,reference\n" + "".join(lines))
        self.write("people/Ann/1.jpg", first[1])
        self.write("people/Ann/2.jpg", first[2])
        (folder / "people.csv").write_text("file,person\nface_0,Ann\nface_3,Ann\n")

    def write(self, path, data):
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)

    def usable(self, benchmark):
        """Pixels of the references by case, read by hand; a broken one and the image itself are left out."""
        if benchmark == "people":
            ann = [data for _, data in self.references["face_0"][:2]]
            return {stem: [pixels(data) for data in (ann if stem in ("face_0", "face_3") else [])] for stem in self.lq}
        kept = {"face_0": (0, 1, 2), "face_1": (1,), "face_2": (1,), "face_3": ()}
        return {stem: [pixels(self.references[stem][k][1]) for k in numbers] for stem, numbers in kept.items()}

    def arguments(self, *benchmarks):
        found = [f"benchmark=[{'lfw_test_ref' if 'lfw_test_ref' in benchmarks else ''}]"]
        for name in benchmarks:
            if name == "lfw_test_ref":
                found += [f"benchmark.{name}.lq_folder={self.folder}/lq",
                          f"benchmark.{name}.reference_folder={self.folder}/{name}"]  # fmt: skip
                continue
            options = [f"lq_folder:{self.folder}/lq", f"reference_folder:{self.folder}/{name}", "references:null"]
            if name in ("pairs", "people"):
                options.append(f"reference_list:{self.folder}/{name}.csv")
            found.append(f"+benchmark.{name}={{{','.join(options)}}}")
        return found


def blurred(data):
    """A low-quality PNG of 512 pixels."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize((48, 48)).resize((512, 512)).save(stream, "PNG")
    return stream.getvalue()


def as_webp(data):
    """The same pixels in other bytes."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def pixels(data):
    picture = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data).convert("RGB")
    return np.asarray(picture if picture.size == (512, 512) else picture.resize((512, 512), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def world(tmp_path_factory, sample_folder):
    return World(tmp_path_factory.mktemp("world"), sample_folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, built, few_faces, sample_folder):
    """A run over a folder layout and a list of people, on top of a workspace that is built."""
    folder = tmp_path_factory.mktemp("real")
    world = World(folder, sample_folder)
    shutil.copytree(built, folder / "w")
    arguments = (
        "run", "root=w", *build_arguments(few_faces, sample_folder), *world.arguments("lfw_test_ref", "people"),
        "restorer=[reference,refldm-tiny]", "restorer.refldm-tiny.steps=2", "metric=[niqe,ids_ref]", "engine.workers=1",
    )  # fmt: skip
    done = Command(folder)(*arguments)
    assert done.returncode == 1, done.stderr  # an image cannot be read, and two cases have no reference
    return folder / "w", world, arguments, done


def check_tables(root, world, benchmarks):
    """Hold cases and imports to a reading by hand."""
    cases = tables.read_table(root, "cases").set_index(["benchmark", "case_id"])
    imports = tables.read_table(root, "imports")
    assert set(cases.index) == {(name, stem) for name in benchmarks for stem in world.lq}
    for (name, stem), case in cases.iterrows():
        assert np.array_equal(pixels(root / case["lq_path"]), pixels(world.lq[stem]))
        assert pd.isna(case["gt_path"])
        paths = [path.removeprefix("workspace:") for path in case["reference_paths"]]
        expected = world.usable(name)[stem]
        assert len(paths) == len(expected)
        assert all(np.array_equal(pixels(root / path), want) for path, want in zip(paths, expected, strict=True))
        mine = imports.query("benchmark == @name and case_id == @stem and role == 'reference'").sort_values("rank")
        assert mine["path"].dropna().tolist() == paths
        assert mine["rank"].tolist() == list(range(len(mine)))
        if name != "people":
            assert len(mine) == len(world.references[stem])
    assert set(imports.loc[imports["role"] == "reference", "source"]) == {"unknown"}
    broken = imports[imports["error"].notna()].set_index(["benchmark", "case_id", "role"])["error"]
    for name in benchmarks:
        assert broken[name, "face_4", "lq"] == "not an image"
        if name != "people":
            assert broken[name, "face_1", "reference"] == "not an image"
            assert broken[name, "face_2", "reference"] == "the low-quality image itself"
    assert len(broken) == sum(1 if name == "people" else 3 for name in benchmarks)


def test_every_layout_gives_the_same_cases(built, ffhqref, world, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(built, root)
    names = [*PLACES, "people"]
    done = ffhqref("degrade", f"root={root}", *world.arguments(*names), "engine.workers=1")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    check_tables(root, world, names)
    for name, layout in zip(PLACES, ("folders (", "names (", "prefixes (", "buckets (", "list (lq, ref"), strict=True):
        said = f"benchmark '{name}': "
        assert f"{said}layout of the references: {layout}" in done.stderr
        assert f"{said}5 references of 3 images, 2 images have none; source: unknown" in done.stderr
        assert f"{said}1 references not used, being the low-quality image itself, first " in done.stderr
        assert f"{said}left out face_4: not an image" in done.stderr
        if name != "pairs":
            assert f"{said}1 of 8 reference images belong to no low-quality image, first " in done.stderr
    assert "benchmark 'lfw_test_ref': 5 images, sources state 1711: this differs" in done.stderr


def test_restorers_metrics_and_report_take_them(whole):
    root, world, _, done = whole
    assert "cannot show" not in done.stderr
    check_tables(root, world, ["lfw_test_ref", "people"])
    made = tables.read_table(root, "restorations").set_index(["method", "benchmark", "case_id"])
    for (method, name, stem), row in made.iterrows():
        references = world.usable(name)[stem]
        assert row["status"] == ("ok" if references else "failed")
        if not references:
            assert row["error"] == "missing references: 0 of at least 1"
        elif method == "reference":
            assert np.array_equal(pixels(root / row["output_path"]), references[0])
    scores = tables.read_table(root, "scores").set_index(["metric", "method", "benchmark", "case_id"]).sort_index()
    own = scores.loc["ids_ref", "reference"]
    assert np.allclose(own.loc[own["status"] == "ok", "value"], 1.0, atol=1e-5)
    tiny = scores.loc["ids_ref", "refldm-tiny"]
    assert tiny.loc[tiny["status"] == "ok", "value"].lt(0.999).all()
    assert len(own) == len(tiny) == len(made) // 2 == 8
    assert set(own["status"]) == {"ok", "unavailable"}
    person = tables.read_table(root, "cases").set_index(["benchmark", "case_id"])["identity_id"]
    assert person["people", "face_0"] == person["people", "face_3"]
    assert person["lfw_test_ref"].isna().all()
    page = (root / "report" / "report.html").read_text()
    assert "0 to 3 references a case, mean 1.2, 1 cases without; from outside, source: unknown" in page
    assert "LFW-Test" in page
    assert "leaderboard" in done.stdout


@pytest.mark.slow
def test_again_nothing_is_done_and_what_changed_is_done_again(whole):
    root, world, arguments, _ = whole
    command = Command(root.parent)
    done = command(*arguments)
    assert "nothing to do" in done.stderr, done.stderr
    before = tables.read_table(root, "imports")
    lost = root / "references" / "people" / "Ann" / "2.jpg.png"
    kept = lost.read_bytes()
    lost.unlink()
    (world.folder / "lfw_test_ref" / "face_0" / "0.jpg").write_bytes(world.stranger)
    done = command("degrade", *arguments[1:])
    assert done.returncode == 1, done.stderr
    assert lost.read_bytes() == kept
    after = tables.read_table(root, "imports")
    other = before["sha256"].fillna("") != after["sha256"].fillna("")
    assert after.loc[other, "file"].tolist() == ["face_0/0.jpg"]
    options = [item for item in arguments[1:] if not item.startswith("restorer")]
    done = command("restore", *options, "restorer=[reference]")
    assert "restore-reference: 8 to do, 7 of them done before" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("benchmark.lfw_test_ref.reference_folder=null", "'lfw_test_ref' needs the references of its images"),
        ("benchmark.lfw_test_ref.reference_folder=/nowhere", "no such folder: /nowhere"),
        ("benchmark.lfw_test_ref.reference_layout=buckets", "in the layout buckets; here they are called 'face_0/0"),
    ],
)
def test_wrong_references_end_before_any_work(ffhqref, world, tmp_path, change, said):
    done = ffhqref("degrade", f"root={tmp_path}/w", *world.arguments("lfw_test_ref"), change)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "w" / "tables" / "images.parquet").exists()
