"""The restorer `command`: batches in, a foreign program's outputs out, and what went wrong told case by case."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers.base import PartialResult, RestorationBatch, RestorerInfo
from ffhqref.restorers.cache_key import by_content
from ffhqref.restorers.command.checkout import (
    code_state,
    environment_state,
    find_checkout,
    find_interpreter,
    hash_weights,
)
from ffhqref.restorers.command.layout import Call, Case, command_of, fill, lay_out
from ffhqref.restorers.command.outputs import collect, likenesses, swapped
from ffhqref.restorers.command.program import Clock, ProgramError, environment, last_words, run_program
from ffhqref.restorers.command.recipe import Recipe, placeholders

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

BATCH = {"run": 64, "identity": 16, "image": 1}
"""Cases handed over at once, by the recipe's group: a killed run loses no more than those."""

ALIKE = 4
"""After so many cases in a row that failed alone in the same way, and one more from the end, the rest of a failed call
is not tried."""

NO_PART_OF_RESULTS = ("start_seconds", "case_seconds", "info", "weights")
"""Fields of a recipe that may change without anything being done again; weights count by their hashes."""


class CommandRestorer:
    """A method run by its own program, in the user's checkout of its code and with the user's interpreter for it.

    Inputs are written to a temporary folder in the layout that the recipe tells, the program is run there without a
    shell, and its outputs are read back, each by its name. A program that crashes, takes too long, or whose outputs
    seem to be swapped is run again on halves of its cases, down to single ones, so that one case takes no other along;
    outputs of a call that did not end well are not used. What is missing, unreadable or of a wrong size after a good
    end fails with the program's last line and is not tried again.

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
        input_size=None, licence="that of the method", verified_against="programs that fail in every way we thought of",
    )  # fmt: skip
    """Of the kind; an instance's own is its recipe's."""
    version = "1"
    in_process = False
    one_at_a_time = True

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
        given = {str(name): str(value) for name, value in (parameters or {}).items()}
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
        recipe = self.recipe
        texts = [recipe.cwd, *recipe.env.values(), *recipe.files.values(), *recipe.weights, *sum(recipe.commands, ())]
        relative = name == "checkout" and any(not Path(path).is_absolute() for path in recipe.weights)
        return relative or any(name == used for text in texts for used, _ in placeholders(text))

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

        cases = _cases(batch)
        outcomes: dict[int, NDArray[np.uint8] | str] = {}
        if self.recipe.needs_age:
            outcomes = {case.index: "needs the target's age: dataset.ages" for case in cases if case.age is None}
        for group in self._groups([case for case in cases if case.index not in outcomes]):
            outcomes |= _Trials(self._call).attempt(group)
        pictures = torch.zeros_like(batch.lq, device="cpu")
        reasons = {}
        for index, outcome in outcomes.items():
            if isinstance(outcome, str):
                reasons[index] = outcome
            else:
                pictures[index] = to_tensor([outcome])[0]
        return PartialResult(pictures, reasons) if reasons else pictures

    def _groups(self, cases: list[Case]) -> list[list[Case]]:
        if self.recipe.group == "image":
            return [[case] for case in cases]
        if self.recipe.group == "run":
            return [cases] if cases else []
        groups: dict[tuple[str, ...], list[Case]] = {}
        for case in cases:
            groups.setdefault(tuple(sha256_bytes(one.tobytes()) for one in case.references), []).append(case)
        return list(groups.values())

    def _call(self, cases: Sequence[Case]) -> list[NDArray[np.uint8] | str]:
        """Run the programs once for these cases.

        Raises:
            ProgramError: nothing of what they made can be used.
        """
        folder = Path(tempfile.mkdtemp(prefix="ffhqref-", dir=self._scratch)).resolve()
        failed = True
        try:
            made = self._made(cases, folder)
            failed = any(isinstance(one, str) for one in made)
            return [self._told(one, folder) if isinstance(one, str) else one for one in made]
        except ProgramError as error:
            raise ProgramError(self._told(str(error), folder)) from None
        finally:
            if not (failed and self._keep):
                shutil.rmtree(folder, ignore_errors=True)

    def _made(self, cases: Sequence[Case], folder: Path) -> list[NDArray[np.uint8] | str]:
        recipe = self.recipe
        work, logs = folder / "run", folder / "logs"
        work.mkdir()
        logs.mkdir()
        call = lay_out(recipe, cases, work, self._values)
        self._run(call, logs, Clock(recipe.start_seconds + recipe.case_seconds * len(cases)))
        made = collect(recipe, call, [case.lq.shape[:2] for case in cases])
        words = last_words(logs)
        self._check_names([(one, case) for one, case in zip(made, cases, strict=True) if not isinstance(one, str)])
        return [f"{one}; its last line: {words}" if isinstance(one, str) and words else one for one in made]

    def _check_names(self, made: Sequence[tuple[NDArray[np.uint8], Case]]) -> None:
        """Refuse outputs that stand under each other's names.

        A suspicion may be wrong: some methods make of a face what they like. So one suspect is restored alone; where
        that gives what the call gave for it, and not what the call gave under the other name, names are right.

        Raises:
            ProgramError: they are swapped.
        """
        pictures = [picture for picture, _ in made]
        mixed = swapped(pictures, [case.lq for _, case in made])
        if not mixed:
            return
        position, other = next(iter(mixed.items()))
        try:
            (alone,) = self._call([made[other][1]])
        except ProgramError:
            alone = ""
        if not isinstance(alone, str):
            under_its_name, under_the_other = likenesses([alone], [pictures[other], pictures[position]])[0]
            if under_its_name >= under_the_other:
                return
        raise ProgramError(f"{len(mixed)} of {len(made)} outputs stand under the names of other cases of their call")

    def _run(self, call: Call, logs: Path, clock: Clock) -> None:
        env = {name: fill(text, call.values) for name, text in self.recipe.env.items()}
        index = self.device.partition(":")[2]
        if index:
            env.setdefault("CUDA_VISIBLE_DEVICES", index)
        for command in self.recipe.commands:
            run_program(
                command_of(command, call.values), cwd=Path(fill(self.recipe.cwd, call.values)),
                env=environment(self._python, env), logs=logs, clock=clock,
            )  # fmt: skip

    def _told(self, reason: str, folder: Path) -> str:
        """Return a reason that is the same in every run, but for where the logs are kept."""
        plain = reason.replace(str(folder / "run"), "{run}")
        return f"{plain} (kept: {folder})" if self._keep else plain


@dataclass
class _Trials:
    """Runs a group of cases, in halves where it fails, and gives up where nothing works."""

    call: Callable[[Sequence[Case]], list[NDArray[np.uint8] | str]]
    reason: str = ""
    alike: int = 0
    given_up: bool = False

    def attempt(self, cases: Sequence[Case]) -> dict[int, NDArray[np.uint8] | str]:
        """Return picture or reason for each case, by index."""
        if self.given_up:
            return {case.index: f"{self.reason} (not tried alone: {ALIKE + 1} others failed so)" for case in cases}
        try:
            made = self.call(cases)
        except ProgramError as error:
            if len(cases) == 1:
                self._failed(str(error))
                return {cases[0].index: str(error)}
        else:
            self.alike = 0
            return {case.index: one for case, one in zip(cases, made, strict=True)}
        middle = len(cases) // 2
        first = self.attempt(cases[:middle])
        return first | self._rest(cases[middle:])

    def _rest(self, cases: Sequence[Case]) -> dict[int, NDArray[np.uint8] | str]:
        if self.alike < ALIKE or self.given_up or len(cases) == 1:
            return self.attempt(cases)
        last = self.attempt(cases[-1:])
        self.given_up = self.alike > ALIKE
        return self.attempt(cases[:-1]) | last

    def _failed(self, reason: str) -> None:
        same = _kind(reason) == _kind(self.reason)
        self.alike = self.alike + 1 if same else 1
        self.reason = reason


def _kind(reason: str) -> str:
    """Return a reason without what differs from call to call."""
    return re.sub(r"\(kept: .*|[0-9]+", "", reason)


def _cases(batch: RestorationBatch) -> list[Case]:
    lq = to_uint8(batch.lq)
    ages = batch.ages or [None] * len(batch)
    return [
        Case(index, lq[index], tuple(to_uint8(references)), seed % 2**31, age)
        for index, (references, seed, age) in enumerate(zip(batch.references, batch.seeds, ages, strict=True))
    ]
