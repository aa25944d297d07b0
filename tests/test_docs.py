"""The docs: links lead somewhere, examples can be read, commands of make exist."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml

from .conftest import REPOSITORY

SKIPPED = {".venv", "build", "dist", "workspace", "outputs", "multirun", ".pytest_cache", "node_modules"}
PAGES = [
    path for path in sorted(REPOSITORY.rglob("*.md")) if not SKIPPED & set(path.relative_to(REPOSITORY).parts[:-1])
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in PAGES}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READERS = {"python": ast.parse, "toml": tomllib.loads, "yaml": yaml.safe_load}
WORKFLOW = REPOSITORY / ".github" / "workflows" / "ci.yml"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def anchors(text: str) -> set[str]:
    """Return the fragments by which a page's headings can be linked."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page):
    prose = BLOCK.sub("", TEXTS[page])
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            file, _, fragment = target.partition("#")
            linked = (page.parent / file).resolve() if file else page
            assert linked.exists(), target
            if fragment:
                assert fragment in anchors(linked.read_text(encoding="utf-8")), target


@pages
def test_examples_can_be_read(page):
    for language, text in BLOCK.findall(TEXTS[page]):
        if language in READERS:
            READERS[language](text)


def rules() -> set[str]:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^(\w[\w-]*):(?!=)", makefile, re.MULTILINE))


def test_commands_of_make_exist():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE).group(1).split()
    assert set(phony) == rules()
    for path in [*PAGES, WORKFLOW, REPOSITORY / ".ci" / "run", REPOSITORY / "Makefile"]:
        code = re.findall(r"`make ([a-z-]+)|(?:^|run: |#   )make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
        assert {first or second for first, second in code} <= rules(), path


def test_the_workflow_and_the_citation_can_be_read():
    jobs = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]
    assert all(job["steps"] and job["timeout-minutes"] for job in jobs.values())
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "title", "message", "authors"} <= set(citation)


def test_every_public_name_has_its_place_in_the_api_page():
    import ffhqref

    shown = re.findall(r"^::: ffhqref\.(\w+)$", TEXTS[REPOSITORY / "docs" / "api.md"], re.MULTILINE)
    assert sorted(shown) == sorted(set(ffhqref.__all__) - {"__version__"})


def test_the_site_is_made_without_a_warning(tmp_path):
    """Broken links, pages that no menu shows and names that do not exist are errors: mkdocs.yml is strict."""
    pytest.importorskip("mkdocs_jupyter", reason="the site needs ffhqref[docs]")
    pytest.importorskip("mkdocstrings", reason="the site needs ffhqref[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    made = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "evaluate" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")


def printed_commands() -> list[str]:
    """Return the command lines of README and docs, each once, those with a gap left out."""
    found = []
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))):
        text = TEXTS[page]
        blocks = [block.replace("\\\n", " ") for language, block in BLOCK.findall(text) if language in ("", "bash")]
        lines = [re.sub(r"\s#.*", "", line) for block in blocks for line in block.splitlines()]
        lines += [" ".join(code.split()) for code in re.findall(r"`(ffhqref [^`]+)`", BLOCK.sub("", text))]
        found += [line.strip() for line in lines if line.strip().startswith("ffhqref ")]
    gaps = re.compile(r"\.\.\.|…|\b(COMMAND|NAME|FOLDER|ROOT)\b")
    return sorted({line for line in found if not gaps.search(line)})


OWN = re.compile(r"\b(restorer|metric|benchmark|synthesis)(=|\.)\[?(.*,)?(mine|contrast)\b")
"""Names of plug-ins that the pages write themselves; tests/plugins runs such."""


@pytest.mark.parametrize("line", printed_commands())
def test_printed_commands_are_understood(line):
    """Each composes and is valid: every key is there, has this kind and is the command's, every name can be chosen."""
    from ffhqref.cli.main import COMMANDS, PIPELINES
    from ffhqref.config import source
    from ffhqref.config.overrides import checked, more_folders
    from ffhqref.config.parts import check_parts
    from ffhqref.config.reference import COMMON, KEYS
    from ffhqref.config.run import read_config
    from ffhqref.weights.files import entry

    _, command, *words = shlex.split(line)
    if command in COMMANDS:
        for name in words[1:] if command == "weights" and words[0] in ("fetch", "path") else []:
            entry(name)
        return
    assert command in PIPELINES
    if OWN.search(line):
        pytest.skip("a plug-in of the page")
    source.register(more_folders(words))
    settings = read_config(
        source.compose(checked([word for word in words if "=" in word and not word.startswith("hydra")]))
    )
    check_parts(settings)
    keys = {re.split(r"[.=]", word.lstrip("+~"))[0] for word in words if "=" in word}
    assert keys <= {*KEYS[command], *COMMON, "experiment", "hydra", "hydra/launcher", "train", "embedder"}
