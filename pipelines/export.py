"""Cases -> a data set in the hub's layout, with LQ images, ground truths, references and parameters."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cases.export import export_cases
from ffhqref.cli.main import launch
from ffhqref.config.context import Context, open_context
from ffhqref.config.selection import chosen_cases
from ffhqref.core.errors import ConfigError


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return export(context)


def export(context: Context) -> int:
    """Write the chosen cases."""
    workspace, to, layout = context.workspace, context.config.to, context.config.format
    if to is None:
        raise ConfigError("export needs a new folder: to=FOLDER")
    workspace.check_current("cases")
    counts = export_cases(workspace, chosen_cases(context, workspace, workspace.read("cases")), to, layout)
    for name, count in counts.items():
        context.reporter.say(f"{to}/{name}: {count} cases; load_dataset('{to}', '{name}')")
    return 0


if __name__ == "__main__":
    sys.exit(launch("export"))
