"""The restorer `command`: a method run by its own program."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo
from ffhqref.restorers.cache_key import by_content
from ffhqref.restorers.command.checkout import (
    code_state,
    environment_state,
    find_checkout,
    find_interpreter,
    hash_weights,
)
from ffhqref.restorers.command.layout import Call, Case, command_of, fill, lay_out
from ffhqref.restorers.command.outputs import collect
from ffhqref.restorers.command.program import ProgramError, environment, last_words, run_program
from ffhqref.restorers.command.recipe import CASE_FIELDS, RUN_FIELDS, Recipe, as_text, placeholders
from ffhqref.restorers.run_cases import run_cases

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

BATCH = {"run": 64, "identity": 16, "image": 1}
"""Cases handed over at once, by the recipe's group: a killed run loses no more than those."""

GIVE_UP_AFTER = 4
"""Cases of a failed call that fail alone for the same reason before the rest is not tried."""

NO_PART_OF_RESULTS = ("start_seconds", "case_seconds", "info", "weights")
"""Fields of a recipe that may change without anything being done again; weights count by their hashes."""


class CommandRestorer(Restorer):
    """A method run by its own program, in the user's checkout of its code and with the user's interpreter for it.

    Inputs are written to a temporary folder in the layout that the recipe tells, the program is run there without a
    shell, and its outputs are read back, each by its name. After a call that crashes, takes too long or writes names of
    cases it was not given, nothing is used, and each case is tried again alone. What is missing, unreadable or of a
    wrong size after a good end fails with the program's last line and is not tried again.

    Args:
        recipe: see `ffhqref.restorers.command.recipe.Recipe`; a mapping, or a YAML file.
        checkout: folder of the method's code; placeholder ``{checkout}``.
        python: interpreter of the method's own environment; placeholder ``{python}``.
        parameters: values of further placeholders.
        device: placeholder ``{device}`` (``cuda`` for ``cuda:1``, which sets ``CUDA_VISIBLE_DEVICES`` to 1).
        batch_size: cases handed over at once; by the recipe's group when None.
        scratch: folder for the temporary folders; the system's when None.
        keep: leave the temporary folders of calls that failed, for a look at their logs; the row tells which.

    Raises:
        ConfigError: the recipe, the checkout or a program is wrong or missing.
        WeightsError: a weight file that the recipe names is missing.
    """

    info = RestorerInfo(
        name="command", summary="any method through its own program (docs/restorers.md)", max_references=None,
        input_size=None, licence="that of the method", verified_against="failure-injection tests",
    )  # fmt: skip
    """Of the kind; an instance's own is its recipe's."""
    in_process = False
    exclusive = True
    cache_ignored_options = ("checkout", "python", "batch_size", "scratch", "keep")

    def __init__(
        self,
        recipe: Mapping[str, Any] | str | Path | None = None,
        checkout: str | Path | None = None,
        python: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        device: str = "cpu",
        batch_size: int | None = None,
        scratch: str | Path | None = None,
        keep: bool = False,
    ) -> None:
        if os.name != "posix":
            raise ConfigError("the restorer 'command' needs a POSIX system, such as Linux or macOS")
        if recipe is None:
            raise ConfigError("the restorer 'command' needs a recipe: recipe=FILE.yaml, see docs/restorers.md")
        given = {str(name): as_text(f"parameters.{name}", value) for name, value in (parameters or {}).items()}
        self.recipe = Recipe.of(recipe, given)
        self.device = device
        self._python = find_interpreter(python) if python is not None else None
        self._checkout = find_checkout(checkout) if checkout is not None else None
        self._values = {**given, "device": device.partition(":")[0]}
        for name, value in (("python", self._python), ("checkout", self._checkout)):
            if value is not None:
                self._values[name] = str(value)
            elif self._used(name):
                what = "folder of its code" if name == "checkout" else "interpreter of its own environment"
                raise ConfigError(f"'{self.recipe.info.name}' needs the {what}: {name}=PATH")
        idle = [name for name in given if not self._used(name)]
        if idle:
            known = sorted(name for name in self.recipe.used() if name not in (*RUN_FIELDS, *CASE_FIELDS))
            raise ConfigError(
                f"parameters.{idle[0]}: the recipe has no placeholder '{{{idle[0]}}}'."
                f"{did_you_mean(idle[0], known)} It takes {', '.join(known) or 'none'}"
            )
        self._scratch = None if scratch is None else Path(scratch).expanduser()
        self._keep = keep
        self.batch_size = batch_size or BATCH[self.recipe.group]
        self.groups_references = self.recipe.group == "identity"
        self.info = dataclasses.replace(self.recipe.info, uses_seed=self.recipe.info.uses_seed or self.recipe.uses_seed)
        root = self._checkout or Path.cwd()
        self.weights_sha256 = hash_weights(self.recipe, root, self._values)
        fields = {key: value for key, value in dataclasses.asdict(self.recipe).items() if key not in NO_PART_OF_RESULTS}
        self.cache_key_options = {
            "recipe": by_content(fields, root), "parameters": by_content(given, root),
            "python": environment_state(self._python), "code": code_state(self.recipe, root, self._check_programs()),
        }  # fmt: skip

    def _used(self, name: str) -> bool:
        relative = name == "checkout" and any(not Path(path).is_absolute() for path in self.recipe.weights)
        return relative or name in self.recipe.used()

    def _check_programs(self) -> list[Path]:
        """Return the scripts that are run; a program that is not there is refused now."""
        cwd = self._known(self.recipe.cwd)
        path = environment(self._python, self.recipe.env)["PATH"]
        scripts = []
        for first, *others in self.recipe.commands:
            program = self._known(first)
            if program is not None and shutil.which(program, path=path) is None:
                raise ConfigError(f"recipe: no program '{program}'; a path starts with {{checkout}} or {{run}}")
            for text in others:
                name = self._known(text) if text.endswith((".py", ".sh")) else None
                if name is None or (cwd is None and not Path(name).is_absolute()):
                    continue
                script = Path(cwd or "/") / name
                if not script.is_file():
                    raise ConfigError(f"recipe: no file {script}, which it runs; is checkout= the right folder?")
                scripts.append(script)
        return scripts

    def _known(self, text: str) -> str | None:
        """Return a text filled in, None where it depends on the call."""
        known = all(name in self._values for name, _ in placeholders(text))
        return fill(text, self._values) if known else None

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1; with the reasons of those cases that failed, where some did."""
        import torch

        images, reasons = torch.zeros_like(batch.lq, device="cpu"), dict[int, str]()
        for indices in self._groups(batch, reasons):
            outcomes = run_cases(self._call, batch.subset(indices), give_up_after=GIVE_UP_AFTER)
            for index, outcome in zip(indices, outcomes, strict=True):
                if outcome.image is None:
                    reasons[index] = str(outcome.error)
                else:
                    images[index] = outcome.image
        return PartialResult(images, reasons) if reasons else images

    def _groups(self, batch: RestorationBatch, reasons: dict[int, str]) -> list[list[int]]:
        """Return the cases of each call; the reasons of cases that the program cannot take are filled in."""
        able = list(range(len(batch)))
        if self.recipe.needs_age:
            ages = batch.ages or [None] * len(batch)
            reasons.update({index: "needs the target's age: dataset.ages" for index in able if ages[index] is None})
            able = [index for index in able if ages[index] is not None]
        if self.recipe.group == "image":
            return [[index] for index in able]
        if self.recipe.group == "run":
            return [able] if able else []
        groups: dict[tuple[str, ...], list[int]] = {}
        for index in able:
            groups.setdefault(tuple(sha256_bytes(x.numpy().tobytes()) for x in batch.references[index]), []).append(
                index
            )
        return list(groups.values())

    def _call(self, batch: RestorationBatch) -> PartialResult:
        """Run the programs once for these cases.

        Raises:
            ProgramError: nothing of what they made can be used.
        """
        folder = Path(tempfile.mkdtemp(prefix="ffhqref-", dir=self._scratch)).resolve()
        failed = True
        try:
            made = self._made(_cases(batch), folder)
            failed = any(isinstance(one, str) for one in made)
        except ProgramError as error:
            raise ProgramError(self._stable(str(error), folder)) from None
        finally:
            if not (failed and self._keep):
                shutil.rmtree(folder, ignore_errors=True)
        reasons = {index: self._stable(one, folder) for index, one in enumerate(made) if isinstance(one, str)}
        blank = np.zeros((*batch.lq.shape[2:], 3), np.uint8)
        return PartialResult(to_tensor([blank if isinstance(one, str) else one for one in made]), reasons)

    def _made(self, cases: Sequence[Case], folder: Path) -> list[NDArray[np.uint8] | str]:
        work, logs = folder / "run", folder / "logs"
        work.mkdir()
        logs.mkdir()
        call = lay_out(self.recipe, cases, work, self._values)
        self._run(call, logs, self.recipe.start_seconds + self.recipe.case_seconds * len(cases))
        words = last_words(logs)
        made = collect(self.recipe, call, [case.lq.shape[:2] for case in cases])
        return [f"{one}; its last line: {words}" if isinstance(one, str) and words else one for one in made]

    def _run(self, call: Call, logs: Path, limit: float) -> None:
        env = {name: fill(text, call.values) for name, text in self.recipe.env.items()}
        index = self.device.partition(":")[2]
        if index:
            env.setdefault("CUDA_VISIBLE_DEVICES", index)
        end = time.monotonic() + limit
        for command in self.recipe.commands:
            run_program(
                command_of(command, call.values), cwd=Path(fill(self.recipe.cwd, call.values)),
                env=environment(self._python, env), logs=logs, end=end, limit=limit,
            )  # fmt: skip

    def _stable(self, reason: str, folder: Path) -> str:
        """Return a reason that is the same in every run, but for where the logs are kept."""
        plain = reason.replace(str(folder / "run"), "{run}")
        return f"{plain} (kept: {folder})" if self._keep else plain


def _cases(batch: RestorationBatch) -> list[Case]:
    lq = to_uint8(batch.lq)
    ages = batch.ages or [None] * len(batch)
    return [
        Case(lq[index], tuple(to_uint8(references)), seed % 2**31, age)
        for index, (references, seed, age) in enumerate(zip(batch.references, batch.seeds, ages, strict=True))
    ]
