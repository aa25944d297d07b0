"""The command ``ffhqref <pipeline> key=value ...``: finds the pipeline and composes the config."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import io
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ffhqref import __version__
from ffhqref.core.conf import PACKAGE, conf_folder
from ffhqref.core.errors import ConfigError, FfhqrefError, SweepError, cannot_write, did_you_mean
from ffhqref.core.escape import plain

R = TypeVar("R")

PIPELINES = {
    "run": "the main job: build, degrade, restore, score and report",
    "build": "images -> embeddings, ages, pairs, identities, references (FFHQ-Ref)",
    "audit": "identities -> chains, weakest edges, a second network's verdict, images of the worst",
    "degrade": "references -> low-quality images and the benchmarks' cases",
    "restore": "cases -> outputs of every restorer",
    "score": "outputs -> scores",
    "report": "scores -> leaderboard, Markdown, LaTeX, CSV and the HTML page",
    "evaluate": "a folder of outputs -> its scores and its place among all that the workspace has: outputs=FOLDER",
    "export": "cases -> a data set in the hub's layout: to=FOLDER format=webdataset|parquet|imagefolder",
    "train": "reference set -> checkpoints: model=[vqgan,ldm,refldm] (ReF-LDM) or faceme, train=tiny|paper",
    "prepare": "reference set -> features and list of images that FaceMe trains on",
    "synthesize": "reference set -> synthetic references in FaceMe's layout: plan, render, filter (synthesis=warp)",
    "faceme": "FaceMe from images to scores: build, synthesize, prepare, train both stages, degrade, restore, score",
    "validate": "check a reference set: the workspace's, or a downloaded one (release=FOLDER)",
}

COMMANDS = {
    "list": "every name that can be chosen, by kind: data sets, embedders, benchmarks, restorers, metrics, ...",
    "zoo": "every restorer: licence, references, weights, leak mark, proof, cost (options: ffhqref zoo --help)",
    "published": "numbers that papers print, set by set (options: ffhqref published --help)",
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
  ffhqref run restorer=[lq,bicubic,realesrgan] limit=6      dry_run=true: try them on synthetic images first
  ffhqref report merge=[WORKSPACE,WORKSPACE]           one ranking of several workspaces
  ffhqref <pipeline> --help | --cfg job | --multirun key=a,b
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    return guarded(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(arguments: list[str]) -> int:
    name = arguments[0] if arguments else "help"
    if name in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<12}{text}" for name, text in {**PIPELINES, **COMMANDS}.items())
        sys.stdout.write(USAGE.format(version=__version__, pipelines=lines))
        return 0
    if name in ("-V", "--version", "version"):
        sys.stdout.write(f"ffhqref {__version__}\n")
        return 0
    if name == "list":
        return _list_names()
    if name in COMMANDS:
        return int(importlib.import_module(f"ffhqref.cli.{name}").main(arguments[1:]))
    if name not in PIPELINES:
        known = [*PIPELINES, *COMMANDS]
        raise ConfigError(f"unknown pipeline '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}")
    return launch(name, arguments[1:])


def launch(name: str, arguments: Sequence[str] | None = None) -> int:
    """Compose the config of a pipeline with Hydra and run it; return the exit status.

    Errors that have an explanation for the user come out as one line on standard error, status 2; an interrupt
    gives 130; a run with failed rows gives 1.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # so that errors reach us instead of being printed by Hydra
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _launch(name, given))


def _launch(name: str, arguments: Sequence[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from ffhqref.config.reference import pipeline_help

        sys.stdout.write(pipeline_help(name, PIPELINES[name]))
        return 0
    from ffhqref.config import source
    from ffhqref.config.memory import own_parts
    from ffhqref.config.overrides import checked, more_folders
    from ffhqref.config.run import RunConfig

    source.register(more_folders(arguments), own_parts(arguments, RunConfig().root))
    given = checked(arguments)
    shown = _shown_config(given)
    if shown is None:
        return _run(name, given)
    sys.stdout.write(
        explained(
            lambda: source.printed(_recalled(source.compose(shown), name, shown), resolve="--resolve" in given), given
        )
    )
    return 0


def _recalled(config: Any, command: str, arguments: Sequence[str]) -> Any:
    """Return a config with what its workspace was made with and the arguments do not name."""
    from ffhqref.config.memory import recall
    from ffhqref.config.overrides import named_keys
    from ffhqref.core.progress import Reporter

    return recall(config, command, named_keys(arguments), Reporter().say)


def _run(name: str, arguments: Sequence[str]) -> int:
    """Let Hydra compose the config and call the pipeline, once or for each job of a sweep."""
    import logging

    import hydra

    logging.raiseExceptions = False  # Hydra logs what it prints; a reader that has gone is no defect
    status: list[int] = [0]
    failures: list[BaseException] = []
    here = os.getpid()

    def task(config: Any) -> None:
        from ffhqref.config.memory import remember
        from ffhqref.engine.worker import keep_freed_memory

        keep_freed_memory()
        try:
            config = _recalled(config, name, arguments)
            status[0] = max(status[0], int(pipeline_module(name).execute(config)))
            remember(config, name)
        except (FfhqrefError, OSError) as error:
            failures.append(error)  # Hydra would add lines of its own to an exception that reaches it
        if os.getpid() == here:
            return
        # A job of a launcher: the lists are copies, an exception is what comes back.
        if failures:
            raise failures[0]
        if status[0]:
            raise SweepError("some rows of this job failed; the others and its tables are there, see what it printed")

    sys.argv = [f"ffhqref {name}", *arguments]
    run = hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(task)
    explained(run, arguments)
    if failures:
        raise failures[0]
    return status[0]


def explained(call: Callable[[], R], arguments: Sequence[str]) -> R:
    """Call something of Hydra's; what it says of a config or a launcher is told in our words."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from ffhqref.config.errors import explain, explain_launcher

    try:
        return call()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error, arguments)) from error
    except FfhqrefError:
        raise
    except Exception as error:
        told = explain_launcher(error)
        if told is None:
            raise
        raise FfhqrefError(told) from error


def _shown_config(arguments: Sequence[str]) -> list[str] | None:
    """Return the overrides of ``--cfg job``; None where something else is asked for."""
    flags = {argument for argument in arguments if argument.startswith("-")}
    wanted = "--cfg=job" in flags or any(
        pair in (("--cfg", "job"), ("-c", "job")) for pair in itertools.pairwise(arguments)
    )
    if not wanted or not flags <= {"--cfg", "-c", "--cfg=job", "--resolve", "--config-dir", "-cd"}:
        return None
    values = {
        index + 1 for index, argument in enumerate(arguments) if argument in ("--cfg", "-c", "--config-dir", "-cd")
    }
    return [item for index, item in enumerate(arguments) if index not in values and not item.startswith("-")]


def guarded(command: Callable[[], int]) -> int:
    """Run a command; an error that has an explanation for the user comes out as one line, status 2."""
    _open_streams()
    try:
        status = command()
        sys.stdout.flush()
    except FfhqrefError as error:
        _complain(str(error))
        return 1 if isinstance(error, SweepError) else 2
    except KeyboardInterrupt:
        _complain("interrupted; what was finished is kept, the same command goes on from there")
        return 130
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if not cannot_write(error) and not error.filename:
            raise
        _complain(_told(error))
        return 2
    return status


def _open_streams() -> None:
    """Let no run end because of where its text goes: a closed stream, or a character that an encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _told(error: OSError) -> str:
    """Return what the system refused, where, and what to do."""
    where = f": {error.filename}" if error.filename else ""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no access ({error.strerror}){where}; grant it or choose another root=FOLDER, then run again"
    if cannot_write(error):
        return f"cannot write ({error.strerror}){where}; make room or choose another root=FOLDER, then run again"
    reason = error.strerror or type(error).__name__
    return f"{reason}{where}; what was finished is kept, the same command goes on from there"


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


def _list_names() -> int:
    from ffhqref.config.source import choices

    for kind, names in choices().items():
        sys.stdout.write(f"{kind:<11} {', '.join(names)}\n")
    return 0


def _complain(message: str) -> None:
    line = plain(message)
    sys.stderr.write(f"ffhqref: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
