"""The command ``ffhqref <pipeline> key=value ...``: finds the pipeline and composes the config."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ffhqref import __version__
from ffhqref.core.conf import PACKAGE, conf_folder
from ffhqref.core.errors import FfhqrefError, SweepError, cannot_write, did_you_mean

PIPELINES = {
    "run": "the main job: build, degrade, restore, score and report",
    "build": "pictures -> embeddings, ages, pairs, identities, references (FFHQ-Ref)",
    "audit": "identities -> chains, weakest edges, a second network's verdict, pictures of the worst",
    "degrade": "references -> low-quality pictures and the benchmarks' cases",
    "restore": "cases -> outputs of every restorer",
    "score": "outputs -> scores",
    "report": "scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page",
    "train": "reference set -> checkpoints: model=[vqgan,ldm,refldm] (ReF-LDM) or faceme, train=tiny|paper",
    "prepare": "reference set -> features and list of pictures that FaceMe trains on",
    "synthesize": "reference set -> synthetic references in FaceMe's layout: plan, render, filter (synthesis=warp)",
    "faceme": "FaceMe from pictures to scores: build, synthesize, prepare, train both stages, degrade, restore, score",
    "validate": "check a reference set: the workspace's, or a downloaded one (release=FOLDER)",
}

COMMANDS = {
    "zoo": "every restorer: licence, references, weights, leak mark, proof, cost (options: ffhqref zoo --help)",
    "weights": "weight files: list, fetch, verify, path, convert (options: ffhqref weights --help)",
}
"""Pipelines that have arguments of their own in place of a Hydra config."""

USAGE = """\
ffhqref {version}: build reference sets, degrade, restore, score and rank face restoration.

usage: ffhqref <pipeline> [key=value ...]

{pipelines}

common keys (all: ffhqref run --cfg job)
  root=FOLDER              workspace, default 'workspace'
  dataset=NAME             sample (embedded), folder, ffhq, celeba_hq, celebref_hq;  dataset.path=FOLDER
  embedder=NAME            dlib (packaged), insightface, onnx;  embedder.path=FILE
  benchmark=[a,b]          moderate, severe, same_age, cross_age, ...
  restorer=[a,b]           lq, bicubic, nlm, ...;  'ffhqref list' shows all names
  metric=[a,b]             psnr, ssim, lpips_vgg, ids, niqe, musiq, ...
  engine.workers=N         processes;  limit=N  at most N test targets
  device=auto  seed=2024

examples
  ffhqref run                                          everything, on the embedded sample
  ffhqref run dataset=ffhq dataset.path=images1024x1024 embedder=insightface embedder.path=w600k_r50.onnx
  ffhqref run restorer=[lq,bicubic,realesrgan] limit=6      dry_run=true: try them on synthetic pictures first
  ffhqref report merge=[WORKSPACE,WORKSPACE]           one ranking of several workspaces
  ffhqref <pipeline> --help | --cfg job | --multirun key=a,b
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<12}{text}" for name, text in {**PIPELINES, **COMMANDS}.items())
        sys.stdout.write(USAGE.format(version=__version__, pipelines=lines))
        return 0
    name = arguments[0]
    if name in ("-V", "--version", "version"):
        sys.stdout.write(f"ffhqref {__version__}\n")
        return 0
    if name == "list":
        return _list_names()
    if name in COMMANDS:
        return _command(name, arguments[1:])
    if name not in PIPELINES:
        known = [*PIPELINES, *COMMANDS]
        _complain(f"unknown pipeline '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}")
        return 2
    return launch(name, arguments[1:])


def launch(name: str, arguments: Sequence[str] | None = None) -> int:  # noqa: C901 -- rewritten with issue 12
    """Compose the config of a pipeline with Hydra and run it; return the exit status.

    Errors that have an explanation for the user come out as one line on standard error, status 2; an interrupt
    gives 130; a run with failed rows gives 1.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that errors reach us instead of being printed by Hydra
    config_folder = conf_folder()
    given = [_with_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    sys.argv = [f"ffhqref {name}", *given]
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    status: list[int] = [0]
    failures: list[BaseException] = []
    here = os.getpid()

    def task(config: Any) -> None:
        try:
            status[0] = max(status[0], int(pipeline_module(name).execute(config)))
        except (FfhqrefError, OSError) as error:
            failures.append(error)  # Hydra would add lines of its own to an exception that reaches it
        if os.getpid() == here:
            return
        # A job of a launcher: the lists are copies, an exception is what comes back.
        if failures:
            raise failures[0]
        if status[0]:
            raise SweepError("some rows of this job failed; the others and its tables are there, see what it printed")

    try:
        from ffhqref.config.plugins import register_plugins

        register_plugins()
        _main: Callable[[], None] = hydra.main(
            version_base="1.3", config_path=str(config_folder), config_name="config"
        )(task)
        _compose_and_run(_main, config_folder)
        if failures:
            raise failures[0]
    except FfhqrefError as error:
        _complain(str(error))
        return 1 if isinstance(error, SweepError) else 2
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        from ffhqref.config.errors import explain, is_ours

        if not is_ours(error):
            raise
        _complain(explain(error, config_folder, given))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; what was finished is kept, the same command goes on from there")
        return 130
    except OSError as error:
        if not cannot_write(error) and not error.filename:
            raise
        _complain(_told(error))
        return 2
    except Exception as error:
        from ffhqref.config.errors import explain_launcher

        told = explain_launcher(error)
        if told is None:
            raise
        _complain(told)
        return 2
    return status[0]


def _compose_and_run(main: Callable[[], None], config_folder: Path) -> None:
    """Run Hydra's main; options of constructors that no config file lists need no plus."""
    from hydra.errors import HydraException

    from ffhqref.config.open_options import with_open_options

    while True:
        try:
            return main()
        except HydraException as error:
            opened = with_open_options(error, config_folder, sys.argv[1:])
            if opened is None:
                raise
            sys.argv[1:] = opened


def _told(error: OSError) -> str:
    """Return what the system refused, where, and what to do."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no access ({error.strerror}){where}; grant it or choose another root=FOLDER, then run again"
    if cannot_write(error):
        return f"cannot write ({error.strerror}){where}; make room or choose another root=FOLDER, then run again"
    reason = error.strerror or type(error).__name__
    return f"{reason}{where}; what was finished is kept, the same command goes on from there"


def _with_home(argument: str) -> str:
    """Return an override with the home folder for ``~`` in ``key=~/path``: shells leave it, and Hydra stumbles.

    >>> _with_home("~restorer"), _with_home("dataset.path=a~/b")
    ('~restorer', 'dataset.path=a~/b')
    """
    if argument.startswith("-"):
        return argument
    return re.sub(r"(?<=[=\[,])~(?=/|$)", lambda _: Path.home().as_posix(), argument)


def pipeline_module(name: str) -> ModuleType:
    """Import a pipeline: from inside the package in a wheel, from the checkout's ``pipelines`` otherwise."""
    if "ffhqref.pipelines" not in sys.modules:
        packaged = PACKAGE / "pipelines"
        folder = packaged if packaged.is_dir() else PACKAGE.parent / "pipelines"
        spec = importlib.util.spec_from_file_location(
            "ffhqref.pipelines", folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        sys.modules["ffhqref.pipelines"] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"ffhqref.pipelines.{name}")


def _command(name: str, arguments: Sequence[str]) -> int:
    try:
        return int(pipeline_module(name).main(arguments))
    except FfhqrefError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; what was fetched is kept, the same command goes on from there")
        return 130
    except OSError as error:
        if not error.filename:
            raise
        _complain(f"{error.strerror or type(error).__name__}: {error.filename}")
        return 2


def _list_names() -> int:
    from ffhqref.config.plugins import choices

    for kind, names in choices().items():
        sys.stdout.write(f"{kind:<11} {', '.join(names)}\n")
    return 0


def _complain(message: str) -> None:
    line = " ".join(message.split())
    sys.stderr.write(f"ffhqref: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
