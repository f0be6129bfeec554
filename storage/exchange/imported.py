"""What a file of records holds, and what its import did."""

from __future__ import annotations

import msgspec

from storage.exchange.examples import Example


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What a file holds.

    Attributes:
        records: how many there are. kinds: of each kind.
        ignored_fields: names of fields that were not read. could_be: those that could be one of ours, with its name.
        layouts: how many records were of each foreign layout.
        skipped: records that were left out, for they cannot be imported. skipped_because: the first of them, in words.
        examples: what the first records become; not of an import that was done.
        renamed_languages: tags whose normal form goes by another name, such as `tl` (Tagalog) by `fil` (Filipino).
    """

    records: int
    kinds: dict[str, int]
    ignored_fields: list[str]
    renamed_languages: dict[str, str]
    could_be: dict[str, str] = {}
    layouts: dict[str, int] = {}
    skipped: int = 0
    skipped_because: list[str] = []
    examples: list[Example] = []


class Imported(Looked, frozen=True, kw_only=True):
    """What an import did.

    Attributes:
        stored: records that were new. already: those that the workspace held before (also `already_there`).
        replaced: ratings, of before or of this file, that a later one of the same rater now stands for.
        prompts, samples, ratings: new rows.
    """

    stored: int
    already: int
    replaced: int
    prompts: int
    samples: int
    ratings: int
    already_there: int
    dry_run: bool
