"""What a person chooses and the app remembers: one small record in the workspace's settings, and one list of what of it
can be set. `workbench settings`, the forms of the app and the Prompt screen read that list."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from storage import raters
from storage.errors import UsageError
from storage.feedback import guidelines
from storage.feedback.guidelines import OVERALL, Guideline
from storage.languages import is_tag, normal
from storage.records import Sampling
from storage.signs import without_surrogates
from workbench.widgets.parsing import number, one_of, whole_number

if TYPE_CHECKING:
    from storage.database import Database

KEY = "session"
DEFAULT_THEME = "workbench"
MOST_CANDIDATES = 4
BIDI = ("auto", "app", "terminal", "off")
"""Who turns texts that run from right to left; `auto` is the app, but for terminals that cannot leave it."""


class Session(msgspec.Struct, frozen=True):
    """The researcher's choices. `seed` None draws a fresh one for each prompt; `pinned` is the version that answers
    where what is served is not followed, by its name."""

    model: str = "smollm2"
    screen: str = "prompt"
    language: str = "en"
    candidates: int = 2
    sampling: Sampling = Sampling()
    seed: int | None = None
    system: str = ""
    rater: str = ""
    theme: str = DEFAULT_THEME
    follow: bool = True
    pinned: str = ""
    bidi: str = "auto"
    scale: str = "1-5"
    attributes: str = OVERALL
    guideline: str = ""
    rankings: bool = False
    goal: int = 0
    shares: str = ""

    @property
    def asked(self) -> Guideline:
        """What raters are asked."""
        return _asked(self.scale, self.attributes, self.guideline)


@lru_cache(16)  # it is looked at for each key that might score
def _asked(scale: str, attributes: str, text: str) -> Guideline:
    return Guideline(guidelines.scale(scale), guidelines.attributes(attributes), text)


@dataclass(frozen=True)
class Setting:
    """One thing that can be set.

    Attributes:
        name: what `workbench settings` calls it, such as `longest-answer`.
        title: what a form calls it.
        help: what it means, with its unit.
        path: where it stands in the session, such as `sampling.top_p`; empty for what is kept beside the session.
        parse: from what is typed to a value; raises ValueError with what is wrong.
        choices: what it can be, where that is a fixed set.
        where: `answers` for what shapes an answer, `app` for the rest.
    """

    name: str
    title: str
    help: str
    path: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()
    where: str = "app"

    def of(self, session: Session) -> Any:
        """Its value in a session."""
        value: Any = session
        for part in self.path.split("."):
            value = getattr(value, part)
        return value

    def shown(self, value: Any) -> str:
        """A value as it is typed."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:g}" if isinstance(value, float) else str(value)


def _language(text: str) -> str:
    if not is_tag(text):
        raise ValueError("want a BCP 47 tag, such as es-AR")
    return normal(text)


def _seed(text: str) -> int | None:
    return whole_number(0, 2**31 - 1)(text) if text else None


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError("want a name")
    return text.strip()


def _rater(text: str) -> str:
    try:
        return raters.of_a_person(text)
    except UsageError as error:
        raise ValueError(f"{error.message}: {error.hint}") from None


def _yes(text: str) -> bool:
    return one_of("yes", "no")(text) == "yes"


def _scale(text: str) -> str:
    return guidelines.scale(text).written


def _attributes(text: str) -> str:
    return guidelines.written(guidelines.attributes(text))


def shares_of(text: str) -> dict[str, float]:
    """How much of a session each language should be, as typed (`en 60, sw 40`), as shares of 1. Raises ValueError."""
    parts = [part.split() for part in text.split(",") if part.strip()]
    if not all(len(part) == 2 and is_tag(part[0]) for part in parts):
        raise ValueError("want languages with a number each, such as en 60, sw 40")
    found = {normal(tag): number(0, 1e6)(share) for tag, share in parts}
    if parts and not sum(found.values()):
        raise ValueError("one of them must be above 0")
    return {tag: share / sum(found.values()) for tag, share in found.items()}


def _shares(text: str) -> str:
    shares_of(text)
    return ", ".join(" ".join(part.split()) for part in text.split(",") if part.strip())


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        raise ValueError(f"must be a number, not {text!r}") from None
    if not 0 <= share < 1:
        raise ValueError(f"must be at least 0 and below 1, not {text}")
    return share


SETTINGS = (
    Setting("held-out-share", "held-out share", "of new prompts, 0 to below 1", "", _share),
    Setting("language", "language", "of the next prompt, a BCP 47 tag", "language", _language),
    Setting("rater", "rater", "whose ratings these are", "rater", _rater),
    Setting("model", "model", "name or path", "model", _name),
    Setting("theme", "theme", "colours, as the palette has them", "theme", _name),
    Setting("follow", "follow", "yes: answer with what is served", "follow", _yes, ("yes", "no")),
    Setting("bidi", "right to left", "auto, app, terminal, off", "bidi", one_of(*BIDI), BIDI),
    Setting("scale", "scale", "1-5, or 0-2: bad, fair, good", "scale", _scale),
    Setting("attributes", "attributes", "helpful, fluent? (? optional)", "attributes", _attributes),
    Setting("guideline", "guideline", "the rules of rating, by name", "guideline", str),
    Setting("rankings", "rankings", "yes: 3 or 4 answers at once", "rankings", _yes, ("yes", "no")),
    Setting("goal", "goal", "items a session; 0 is none", "goal", whole_number(0, 1_000_000)),
    Setting("shares", "shares", "of languages: en 60, sw 40", "shares", _shares),
    Setting("answers", "answers", "1 to 4", "candidates", whole_number(1, MOST_CANDIDATES), where="answers"),
    Setting("temperature", "temperature", "0 is greedy", "sampling.temperature", number(0, 10), where="answers"),
    Setting("top-p", "top-p", "1 keeps all", "sampling.top_p", number(0.001, 1), where="answers"),
    Setting("longest-answer", "longest answer", "tokens", "sampling.max_new_tokens", whole_number(1, 100_000),
            where="answers"),
    Setting("seed", "seed", "empty draws a fresh one", "seed", _seed, where="answers"),
    Setting("system-prompt", "system prompt", "may be empty", "system", str, where="answers"),
)  # fmt: skip
BY_NAME = {setting.name: setting for setting in SETTINGS}


def changed(session: Session, values: dict[str, Any]) -> Session:
    """The session with other values, by path."""
    for path, value in values.items():
        first, _, rest = path.partition(".")
        inner = msgspec.structs.replace(getattr(session, first), **{rest: value}) if rest else value
        session = msgspec.structs.replace(session, **{first: inner})
    return session


def load(database: Database) -> Session:
    """The last session's choices; the defaults where there are none or they do not make sense any more."""
    from storage import settings

    try:
        found = msgspec.convert(settings.get(database, KEY, {}), Session)
    except (msgspec.ValidationError, msgspec.DecodeError):
        found = Session()
    usual = Session()
    for setting in SETTINGS:
        if setting.path and (value := setting.of(found)) != setting.of(usual):
            try:
                setting.parse(setting.shown(value))
            except ValueError:
                found = changed(found, {setting.path: setting.of(usual)})
    return found if found.rater else msgspec.structs.replace(found, rater=default_rater())


def save(database: Database, session: Session) -> None:
    from storage import settings

    settings.put(database, KEY, msgspec.to_builtins(session))


def save_changes(database: Database, before: Session, now: Session) -> None:
    """Store what differs between two sessions; all else stays as it is stored, whoever set it."""
    with database.transaction():
        save(database, changed(load(database), differences(before, now)))


def differences(before: msgspec.Struct, now: msgspec.Struct) -> dict[str, Any]:
    """The values that differ now, by path."""
    found: dict[str, Any] = {}
    for name in now.__struct_fields__:
        old, new = getattr(before, name), getattr(now, name)
        if isinstance(new, msgspec.Struct):
            found |= {f"{name}.{path}": value for path, value in differences(old, new).items()}
        elif new != old:
            found[name] = new
    return found


def default_rater() -> str:
    """The name ratings are kept under until another is chosen: the account's."""
    try:
        return without_surrogates(getpass.getuser())
    except (KeyError, OSError):
        return "rater"
