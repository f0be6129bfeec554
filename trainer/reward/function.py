"""Rewards in plain Python: `FILE.py:NAME`, and checks whose truth is known, as `--reward-function` names them.

    def polite(prompt, response, **facts):        # for one answer: a number, or several, one a part, which add up
        return float("please" in response.lower())

    def shorter(prompts, responses, **facts):     # the first parameter is called `prompts`: for many answers at once
        return [-len(response.split()) / 50 for response in responses]

A file is run as it is, with all that the user who starts the trainer may do. No torch is needed here, so that a mistake
is told before anything is loaded or queued.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.errors import UsageError
from storage.wording import counted
from trainer.reward.language import detector, is_in

if TYPE_CHECKING:
    from trainer.algorithms.rollouts import Rollout

FORMS = "FILE.py:NAME, regex:PATTERN, language, or length:LOW-HIGH, each with =WEIGHT behind it or without"
FACTS = ("language", "system", "finish_reason", "tokens", "prompt_id")
"""What a function may ask for besides prompt and response.

language: of the prompt, a BCP 47 tag. system: the system prompt, often empty. finish_reason: `eos` where the answer
ended by itself, `length` where it was cut off. tokens: how many the answer has. prompt_id: its key in the workspace.
"""
SHOWN = 60  # characters of a text in an error
_WEIGHED = re.compile(r"(?P<what>.+)=(?P<weight>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.DOTALL)
_IN_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[^\W\d]\w*)")
_LENGTH = re.compile(r"length:(?P<low>\d+)-(?P<high>\d+)")
# A word is what stands between white space and has a letter or a digit; where no spaces are written, a character.
_SPACELESS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_SPACELESS}]|[^\s{_SPACELESS}]+")

Values = list[list[float]]


class RewardFunctionError(UsageError):
    """A function failed on an answer, or returned what is no reward. Nothing was learned from that answer's round."""


@dataclass(frozen=True)
class RewardFunction:
    """One reward, as its user named it.

    Attributes:
        what: without its weight, the path of a file absolute: it names the same from everywhere.
        name: of the function or the check, for its curve.
        weight: of its values in the sum; at 0 it is only drawn.
        sha256: of the file that it came from, whose imports are not covered; empty for a check.
        call: the function itself. many: whether it takes all answers at once. takes: the facts that it is given.
    """

    what: str
    name: str
    weight: float
    sha256: str
    call: Callable[..., Any]
    many: bool
    takes: tuple[str, ...]

    @property
    def spelled(self) -> str:
        """As it can be given again."""
        return f"{self.what}={self.weight:g}"

    def values(self, rollouts: Sequence[Rollout]) -> Values:
        """What it says of each answer, before its weight: one number, or several, and of each answer equally many.

        Raises:
            RewardFunctionError: it failed, or returned anything but finite numbers; the message names the answer.
        """
        with redirect_stdout(sys.stderr):  # what a function prints is narration
            found = self._batch(rollouts) if self.many else [self._one(rollout) for rollout in rollouts]
        values = [self._checked(value, rollout) for value, rollout in zip(found, rollouts, strict=True)]
        for value, rollout in zip(values, rollouts, strict=True):
            if len(value) != len(values[0]):
                parts = counted(len(value), "part")
                raise self._error(f"returned {parts}, and {len(values[0])} for another answer,", rollout)
        return values

    def _one(self, rollout: Rollout) -> Any:
        facts = facts_of(rollout)
        try:
            return self.call(rollout.prompt.transcript, rollout.text, **{fact: facts[fact] for fact in self.takes})
        except Exception as error:
            raise self._error(f"raised {_described(error, self.what)}", rollout) from error

    def _batch(self, rollouts: Sequence[Rollout]) -> list[Any]:
        known = [facts_of(rollout) for rollout in rollouts]
        columns = {fact: [facts[fact] for facts in known] for fact in self.takes}
        prompts, responses = [rollout.prompt.transcript for rollout in rollouts], [rollout.text for rollout in rollouts]
        several = f"for {len(rollouts)} answers, the first of them" if len(rollouts) > 1 else "for the answer"
        try:
            found = self.call(prompts, responses, **columns)
        except Exception as error:
            raise self._error(f"raised {_described(error, self.what)}", rollouts[0], several) from error
        found = _as_list(found)
        if not isinstance(found, list):
            raise self._error(f"returned {_shown(found)} instead of a list", rollouts[0], several)
        if len(found) != len(rollouts):
            raise self._error(f"returned a list of {len(found)}", rollouts[0], several)
        return found

    def _checked(self, value: Any, rollout: Rollout) -> list[float]:
        parts = _as_list(value)
        parts = parts if isinstance(parts, list) else [parts]
        if not parts or not all(isinstance(part, Real) and math.isfinite(part) for part in parts):
            raise self._error(f"returned {_shown(value)}, which is no finite number,", rollout)
        return [float(part) for part in parts]

    def _error(self, happened: str, rollout: Rollout, which: str = "for the answer") -> RewardFunctionError:
        return RewardFunctionError(
            f"{self.what} {happened} {which} {_quoted(rollout.text)} to {_quoted(rollout.prompt.transcript)}",
            "mend it, and the job goes on by `trainer resume JOB --accept-reward-function`; where the cause was not "
            "the file, `trainer resume JOB` will do",
        )


def facts_of(rollout: Rollout) -> dict[str, Any]:
    """What a function may know of an answer: FACTS."""
    prompt, completion = rollout.prompt, rollout.completion
    said = (prompt.language, prompt.system, completion.finish_reason, len(completion.token_ids), prompt.id)
    return dict(zip(FACTS, said, strict=True))


def read(text: str) -> RewardFunction:
    """The function or check that a text names.

    Raises:
        UsageError: it names none, the file cannot be run, or the function cannot be called as it must be.
    """
    weighed = _WEIGHED.fullmatch(text)
    what, weight = (weighed["what"], float(weighed["weight"])) if weighed else (text, 1.0)
    if what.startswith("regex:"):
        return RewardFunction(what, "regex", weight, "", _regex(what.removeprefix("regex:")), False, ())
    if what == "language":
        detector()
        return RewardFunction(what, "language", weight, "", answers_in_its_language, False, ("language",))
    if what.startswith("length:"):
        return RewardFunction(what, "length", weight, "", _length(what), False, ())
    named = _IN_FILE.fullmatch(what)
    if named is None:
        raise UsageError(f"{text!r} is no reward function", f"give {FORMS}")
    path = Path(named["file"]).expanduser().resolve()
    return _from_file(path, named["name"], weight)


def read_all(texts: Sequence[str], digests: Sequence[str] = (), *, changed: bool = False) -> list[RewardFunction]:
    """The functions that some texts name.

    Args:
        digests: of their files when the job began, in their order, empty for checks; none where it begins now.
        changed: take files that changed since.

    Raises:
        UsageError: as :func:`read`, or a file has changed.
    """
    found = [read(text) for text in texts]
    if digests and len(digests) != len(found):
        raise UsageError(
            f"there are {counted(len(found), 'reward function')} and {counted(len(digests), 'digest')} of them",
            "leave out reward_function_sha256: it is filled in when a job begins",
        )
    for one, digest in zip(found, digests, strict=False):
        if one.sha256 != digest and not changed:
            raise UsageError(
                f"{one.what} has changed since the job began (sha256 {digest[:12]} then, {one.sha256[:12]} now)",
                "put the file back as it was, begin a new run, or go on with the file as it is now: "
                "`trainer resume JOB --accept-reward-function`",
            )
    return found


def curve_names(functions: Sequence[RewardFunction]) -> list[str]:
    """A name for each that no other has: its own, or with `_2`, `_3` where several are called the same."""
    names: list[str] = []
    for one in functions:
        number, name = 1, one.name
        while name in (*names, LEARNED):
            number += 1
            name = f"{one.name}_{number}"
        names.append(name)
    return names


LEARNED = "learned"
"""What the curve of the reward model is called, or of the table."""


# --- functions in files -----------------------------------------------------------------------------------------------


def _from_file(path: Path, name: str, weight: float) -> RewardFunction:
    module, digest = _run(path)
    what = f"{path}:{name}"
    function = module.get(name)
    if function is None:
        own = [key for key, value in module.items() if inspect.isfunction(value) and not key.startswith("_")]
        raise UsageError(f"{path} has no {name}", f"it has {', '.join(own)}" if own else "it has no functions")
    if not callable(function) or inspect.iscoroutinefunction(function) or inspect.isclass(function):
        raise UsageError(f"{what} is {_shown(function)}, which is no plain function", "name a function of that file")
    many, takes = _signature(what, function)
    return RewardFunction(what, name, weight, digest, function, many, takes)


def _run(path: Path) -> tuple[dict[str, Any], str]:
    """The names of a file that was run, and the digest of what was run: it is read once, and no bytecode is kept."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", f"give {FORMS}") from error
    digest = hashlib.sha256(source).hexdigest()
    name = f"reward_function_{hashlib.sha256(str(path).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:  # functions of one file share what it keeps
        return sys.modules[name].__dict__, digest
    module = types.ModuleType(name)
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # what lies beside it can be imported, and hides nothing
    sys.modules[name] = module  # dataclasses and pickle look there
    try:
        with redirect_stdout(sys.stderr):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _refused(path, error) from error
    return module.__dict__, digest


def _refused(path: Path, error: Exception | SystemExit) -> UsageError:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return UsageError(f"{path}, line {error.lineno}: {error.msg}", "mend that line")
    return UsageError(f"{path} cannot be loaded: {_described(error, str(path))}", "run it with python to see why")


def _signature(what: str, function: Callable[..., Any]) -> tuple[bool, tuple[str, ...]]:
    """Whether a function takes many answers at once, and which facts it is given."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError as error:
        raise UsageError(
            f"{what} does not say what it takes", "wrap it: def NAME(prompt, response, **facts)"
        ) from error
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    starred = any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    first, rest = parameters[:2], parameters[2:]
    if starred or len(first) < 2 or any(parameter.kind not in by_place for parameter in first):
        raise UsageError(
            f"{what} must take a prompt and a response first",
            "write def NAME(prompt, response, **facts), or for many at once def NAME(prompts, responses, **facts)",
        )
    everything = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in rest)
    named = [parameter for parameter in rest if parameter.kind != inspect.Parameter.VAR_KEYWORD]
    for parameter in named:
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind == inspect.Parameter.POSITIONAL_ONLY or (required and parameter.name not in FACTS):
            raise UsageError(f"{what} asks for {parameter.name}, which nobody tells it", f"facts: {', '.join(FACTS)}")
    takes = FACTS if everything else tuple(one.name for one in named if one.name in FACTS)
    return first[0].name == "prompts", takes


# --- checks -----------------------------------------------------------------------------------------------------------


def _regex(pattern: str) -> Callable[..., Any]:
    """1 where the pattern is found in an answer, else 0."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"regex:{pattern} is no regular expression: {error}", "mend the pattern") from error
    return lambda prompt, response: float(compiled.search(response) is not None)


def _length(what: str) -> Callable[..., Any]:
    """1 for an answer of LOW to HIGH words; else the share of LOW that it has, or that HIGH is of it."""
    named = _LENGTH.fullmatch(what)
    low, high = (int(named["low"]), int(named["high"])) if named else (0, 0)
    if not 1 <= low <= high:
        raise UsageError(f"{what} is no range of words", "write length:LOW-HIGH, from 1 on, such as length:10-40")

    def within(prompt: str, response: str) -> float:
        count = words(response)
        return min(1.0, count / low, high / max(1, count))

    return within


def words(text: str) -> int:
    """How many words a text has; a Chinese or Japanese character counts as one."""
    return sum(any(character.isalnum() for character in word) for word in _WORD.findall(text))


def answers_in_its_language(prompt: str, response: str, language: str) -> float:
    """1 where an answer is in the language of its prompt, by py3langid (97 languages), else 0.

    Of prompts in a language that it does not know nothing is known: 0 for all their answers.
    """
    return float(is_in(response, language))


# --- words ------------------------------------------------------------------------------------------------------------


def _as_list(value: Any) -> Any:
    """A list of what came as a tuple, an array or a tensor; a number that came in an array of its own as a number."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _described(error: BaseException, what: str) -> str:
    """An error, and the line of the function's own file that it came through, or else where it was raised."""
    places = traceback.extract_tb(error.__traceback__)
    place = next((one for one in reversed(places) if what.startswith(one.filename)), places[-1])
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{said} ({Path(place.filename).name}, line {place.lineno})"


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= SHOWN else text[:SHOWN] + '…'} ({type(value).__name__})"


def _quoted(text: str) -> str:
    flat = " ".join(text.split())
    return f"“{flat if len(flat) <= SHOWN else flat[:SHOWN] + '…'}”"


def described(functions: Sequence[RewardFunction]) -> list[Mapping[str, Any]]:
    """What a version is told to have been rewarded by."""
    return [
        {"name": name, "function": one.what, "weight": one.weight, "sha256": one.sha256 or None}
        for name, one in zip(curve_names(functions), functions, strict=True)
    ]
