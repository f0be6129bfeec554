"""Which part of the review queue to work on: a query by language, task, version, tag and text; saved under a name it is
a working set."""

from __future__ import annotations

import msgspec

from storage import settings
from storage.database import Database
from storage.errors import UsageError
from storage.forms import search_form

_SAVED = "working_sets"
_ACTIVE = "working_set"


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """A query: what is empty leaves nothing out.

    Attributes:
        languages: tags; `es` covers `es-AR`.
        tag: a tag, or what one says: prompts with an answer that anyone tagged so.
        text: stands in the prompt, in any of its turns; neither case nor accents tell.
    """

    languages: tuple[str, ...] = ()
    task: str = ""
    version: str = ""
    tag: str = ""
    text: str = ""

    @property
    def words(self) -> str:
        """What it selects, to be read; empty where it leaves nothing out."""
        named = [("language", ",".join(self.languages)), ("task", self.task), ("version", self.version)]
        named += [("tag", self.tag), ("text", self.text)]
        return " · ".join(f"{name} {value}" for name, value in named if value)

    def has(self, language: str) -> bool:
        """Whether a language is one of those selected."""
        return not self.languages or any(language == own or language.startswith(f"{own}-") for own in self.languages)

    def conditions(self, prompt: str, version: str) -> str:
        """What must hold of a prompt and a version, both sequences, each an expression in SQL; begins with AND."""
        found = ""
        if self.task:
            found += f" AND EXISTS (SELECT 1 FROM prompts WHERE prompts.sequence = {prompt} AND task = :task)"
        if self.text:
            found += f""" AND EXISTS (SELECT 1 FROM prompts WHERE prompts.sequence = {prompt}
                                      AND instr(search_form, :text))"""
        if self.version:
            found += f" AND {version} = (SELECT sequence FROM versions WHERE name = :version_name)"
        if self.tag:
            found += f""" AND EXISTS (
                SELECT 1 FROM counted AS tagged JOIN ratings ON ratings.sequence = tagged.sequence
                JOIN json_each(ratings.tags) AS one
                WHERE tagged.prompt = {prompt} AND tagged.kind = 'tags' AND :tag IN (one.key, one.value))"""
        return found

    @property
    def parameters(self) -> dict[str, str]:
        """The values that the conditions name."""
        return {"task": self.task, "text": search_form(self.text), "version_name": self.version, "tag": self.tag}


def saved(database: Database) -> dict[str, Selection]:
    """The working sets by name."""
    return msgspec.convert(settings.get(database, _SAVED, {}), dict[str, Selection])


def save(database: Database, name: str, selection: Selection) -> None:
    """Keep a query under a name."""
    if not name.strip():
        raise UsageError("a working set needs a name", "for example: workbench queue --task medicine --save clinic")
    with database.transaction():
        settings.put(database, _SAVED, msgspec.to_builtins({**saved(database), name: selection}))


def forget(database: Database, name: str) -> None:
    """Keep a working set no longer. Raises UsageError: there is none of this name."""
    with database.transaction():
        named(database, name)
        settings.put(
            database, _SAVED, msgspec.to_builtins({key: one for key, one in saved(database).items() if key != name})
        )


def named(database: Database, name: str) -> Selection:
    """A working set. Raises UsageError: there is none of this name."""
    found = saved(database)
    if name not in found:
        known = ", ".join(found) or "none yet"
        raise UsageError(f"there is no working set {name!r}", f"saved are: {known}; `workbench queue --save` saves one")
    return found[name]


def active(database: Database) -> Selection:
    """What the app's review is of."""
    return msgspec.convert(settings.get(database, _ACTIVE, {}), Selection)


def activate(database: Database, selection: Selection) -> None:
    """Let the app's review be of this."""
    settings.put(database, _ACTIVE, msgspec.to_builtins(selection))
