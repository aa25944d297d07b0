"""The review page in a real browser, and the verdicts it gives back to the builder."""

from __future__ import annotations

import json
import os
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import DatasetError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.images import save_png
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.options import BuildConfig
from ffhqref.reference_sets.references import Exclusions
from ffhqref.reference_sets.review import read_exclusions, write_review
from ffhqref.store import schemas
from ffhqref.store.workspace import Workspace

BROWSER_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
HOSTILE = 'b,"</script><script>document.title="broken"</script>'


@pytest.fixture
def workspace(tmp_path):
    """Two people: three images in test (one with a hostile id, one unreadable), two in val."""
    root = tmp_path / "pictures"
    names = ["a", HOSTILE, "c", "v", "w"]
    rng = np.random.default_rng(0)
    paths = [f"{number}.png" for number in range(len(names))]
    written = [save_png(root / path, rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for path in paths]
    hashes = [sha256_bytes(data) for data in written]
    (root / paths[2]).write_bytes(b"broken since")
    space = Workspace(tmp_path / "work")
    facts = {"width": 512, "height": 512, "sha256": hashes, "error": None}
    images = pd.DataFrame({"image_id": names, "path": paths, **facts})
    space.write("images", images, dataset={"name": "mine"}, dataset_root=str(root))
    identities = pd.DataFrame({"image_id": names, "identity_id": [4, 4, 4, 7, 7], "size": [3, 3, 3, 2, 2]})
    space.write("identities", identities.assign(split=["test"] * 3 + ["val"] * 2))
    rows = [
        ("a", HOSTILE, 0, 0.25, 12.0),
        ("a", "c", 1, 0.3, np.nan),
        (HOSTILE, "a", 0, 0.25, -12.0),
        ("c", "a", 0, 0.3, np.nan),
    ]
    references = pd.DataFrame(rows, columns=["target_id", "reference_id", "rank", "distance", "age_gap"])
    space.write("references", references.assign(split="test"))
    space.write("ages", pd.DataFrame({"image_id": ["a", HOSTILE], "age": [30.0, 42.0], "source": "x"}))
    return space


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))


def test_the_page_holds_each_picture_once_and_is_whole(workspace):
    page = write_review(workspace).read_text()
    data = data_of(page)
    assert set(data["pictures"]) == {"a", HOSTILE, "c"}
    assert data["pictures"]["c"] is None
    assert page.count("data:image/webp;base64,") == 2
    assert [target["id"] for target in data["targets"]] == ["a", HOSTILE, "c"]
    assert data["targets"][0]["references"] == [
        {"id": HOSTILE, "distance": 0.25, "gap": 12.0},
        {"id": "c", "distance": 0.3, "gap": None},
    ]
    assert page.count("</script>") == 2  # the data and the program: no name ends them
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)  # nothing is loaded from anywhere


def test_a_split_without_targets_is_told(workspace):
    with pytest.raises(DatasetError, match="split 'val' has no target"):
        write_review(workspace, "val")


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = os.environ.get("FFHQREF_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no Chromium found; set FFHQREF_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=BROWSER_FLAGS)
        yield started
        started.close()


def saved(page, folder):
    with page.expect_download() as download:
        page.keyboard.press("s")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.browser
def test_a_person_reviews_with_the_keyboard(browser, workspace, tmp_path):
    path = write_review(workspace)
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    assert page.title() == "Review: mine, test"
    assert "1 of 3 · 0 decided" in page.inner_text("#progress")
    assert page.locator("#references .reference").count() == 2
    assert page.locator("#target img").evaluate("image => image.naturalWidth") == 224
    assert "c cannot be read" in page.inner_text("#references")
    assert "distance 0.25 · +12 years" in page.inner_text("#references")

    page.keyboard.press("1")  # the hostile one is somebody else
    assert page.locator('.reference[aria-pressed="true"]').count() == 1
    page.keyboard.press("a")
    assert "2 of 3 · 1 decided · rejected: pairs 1, targets 0" in page.inner_text("#progress")
    assert page.locator('.reference[aria-pressed="true"]').count() == 1  # the same pair from its other side
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.locator("#target figure.rejected").count() == 1
    page.keyboard.press("u")
    assert page.inner_text("#progress").startswith("2 of 3")

    page.reload()
    assert "2 of 3 · 2 decided · rejected: pairs 1, targets 1 · not saved yet" in page.inner_text("#progress")
    csv_path = saved(page, tmp_path)
    assert csv_path.name == "exclusions.csv"
    assert "not saved" not in page.inner_text("#progress")
    found = read_exclusions(csv_path, ["a", HOSTILE, "c", "v", "w"])
    assert found == Exclusions.of(pairs=[("a", HOSTILE)], targets=["c"])
    assert "a,,accept" in csv_path.read_text().splitlines()

    other = browser.new_context(accept_downloads=True).new_page()  # another machine: no kept verdicts
    other.goto(path.as_uri())
    assert "0 decided" in other.inner_text("#progress")
    other.set_input_files("#load", csv_path)
    other.wait_for_function("document.getElementById('progress').textContent.includes('2 decided')")
    (tmp_path / "again").mkdir()
    assert saved(other, tmp_path / "again").read_bytes() == csv_path.read_bytes()
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    other.set_input_files("#load", bad)
    other.wait_for_selector("#message:not([hidden])")
    assert "bad.csv is no exclusions.csv" in other.inner_text("#message")
    assert "2 decided" in other.inner_text("#progress")

    page.keyboard.press("z")
    page.keyboard.press("ArrowLeft")
    assert page.locator('.reference[aria-pressed="true"]').count() == 0
    assert not errors


@pytest.mark.browser
def test_nothing_leaves_a_narrow_screen(browser, workspace):
    page = browser.new_context(viewport={"width": 360, "height": 700}).new_page()
    page.goto(write_review(workspace).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty file"),
        ("target,reference,verdict\n", "line 1: columns"),
        ("target_id,reference_id,verdict\na,b\n", "line 2: 2 cells"),
        ("target_id,reference_id,verdict\na,b,reject\na,,maybe\n", "line 3: verdict 'maybe'"),
        ("target_id,reference_id,verdict\n,b,reject\n", "line 2: target ''"),
        ("target_id,reference_id,verdict\na,a,reject\n", "line 2: target 'a' and reference 'a'"),
        ("target_id,reference_id,verdict\n\na,z,reject\n", "line 3: there is no image 'z'"),
        ("target_id,reference_id,verdict\na,b,reject\nb,a,accept\n", "line 3: says accept where line 2 says reject"),
        ('target_id,reference_id,verdict\n"a,b,reject\n', "line 2: no valid CSV"),
    ],
)
def test_bad_verdicts_name_the_line(tmp_path, content, said):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_exclusions(tmp_path / "x.csv", ["a", "b"])
    assert said in str(caught.value)


def test_an_absent_or_binary_file_is_told(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        read_exclusions(tmp_path / "absent.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_exclusions(tmp_path / "x.csv")


def test_the_builder_obeys_the_verdicts(tmp_path):
    """One person with four images in test: a rejected pair and a rejected target are gone, nothing else."""
    rng = np.random.default_rng(2)
    centre = rng.normal(size=16)
    vectors = centre + 0.35 * rng.normal(size=(4, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    config = BuildConfig(max_distance=0.6, min_distance=0.0, test=1, val=0, min_references=1)
    (tmp_path / "x.csv").write_text("target_id,reference_id,verdict\nb,a,reject\nd,,reject\na,,accept\na,c,accept\n")
    whole = build_reference_set(list("abcd"), vectors, config).references
    left = build_reference_set(
        list("abcd"), vectors, config, exclusions=read_exclusions(tmp_path / "x.csv", "abcd")
    ).references

    def pairs(frame):
        return set(zip(frame["target_id"], frame["reference_id"], strict=True))

    assert len(pairs(whole)) == 12
    assert pairs(whole) - pairs(left) == {("a", "b"), ("b", "a"), ("d", "a"), ("d", "b"), ("d", "c")}
    assert schemas.SPECS["references"].columns.keys() == set(left.columns)
