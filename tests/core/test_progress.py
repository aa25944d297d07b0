"""Progress in a log: what is to do, how fast, and a stage that runs twice in one pipeline."""

from __future__ import annotations

import io

from ffhqref.core.progress import Reporter


def test_a_stage_that_runs_again_over_other_rows_begins_anew():
    stream = io.StringIO()
    with Reporter(stream) as reporter:
        for done in (2, 3, 4):
            reporter("embed", done, 4)
        for done in (0, 5, 10):
            reporter("embed", done, 10)
        reporter("embed", 10, 10)
    lines = stream.getvalue().splitlines()
    assert [line.split("/s")[0].rsplit(", ", 1)[0] for line in lines] == [
        "embed: 4 to do",
        "embed: 4/4",
        "embed: 10 to do",
        "embed: 10/10",
    ]
    assert lines[0] == "embed: 4 to do, 2 of them done before"
    assert "-" not in stream.getvalue(), "no rate below zero"
    assert reporter.computed == 4
