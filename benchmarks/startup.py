"""CPU time of the answers that must be quick, against a bare Hydra program that does nothing.

python benchmarks/startup.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

BARE = "import hydra; hydra.main(version_base=None)(lambda config: None)()"
COMMANDS = (["--help"], ["run", "--help"], ["run", "--cfg", "job"], ["run", "rot=x"])


def cpu_seconds(command: list[str]) -> float:
    """Return user and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:  # a bare Hydra program writes its logs where it runs
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        subprocess.run(command, capture_output=True, check=False, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Print the best of some runs for each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = range(parser.parse_args().repeats)
    bare = min(cpu_seconds([sys.executable, "-c", BARE]) for _ in repeats)
    print(f"{'bare Hydra program':28s} {bare:.2f} s of CPU")
    for arguments in COMMANDS:
        ours = min(cpu_seconds([sys.executable, "-m", "ffhqref.cli.main", *arguments]) for _ in repeats)
        print(f"{'ffhqref ' + ' '.join(arguments):28s} {ours:.2f} s of CPU, {ours / bare:.2f} times the bare one")


if __name__ == "__main__":
    main()
