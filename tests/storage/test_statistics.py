"""Statistics: what is there, and what counts."""

from __future__ import annotations

from storage import conversations, samples
from storage.database import Database
from storage.feedback import census, log
from storage.feedback.census import LanguageCounts
from storage.records import Choice, Source, Split


def test_an_empty_workspace_has_nothing(database: Database) -> None:
    found = census.summary(database)
    assert (found.prompts, found.samples, found.ratings, found.languages) == (0, 0, 0, {})


def test_counts_by_language_kind_source_and_rater(database: Database) -> None:
    french = conversations.add(database, "Qu'est-ce qu'un glacier ?", language="fr")
    conversations.add(database, "什么是冰川？", language="zh", split=Split.ETHICS)
    a, b = samples.new(french.id, "De la glace."), samples.new(french.id, "Un fleuve.", origin="imported")
    samples.add(database, [a, b])
    log.append(database, log.score(a.id, 4, "ana"))
    log.append(database, log.score(b.id, 2, "judge", source=Source.AI))
    log.append(database, log.pair(a.id, b.id, Choice.A, "ana"))
    found = census.summary(database)
    assert (found.prompts, found.samples, found.ratings) == (2, 2, 3)
    assert found.languages == {"fr": LanguageCounts(1, 2, 3), "zh": LanguageCounts(1, 0, 0)}
    assert found.kinds == {"pair": 1, "score": 2}
    assert found.sources == {"ai": 1, "human": 2}
    assert found.raters == {"ana": 2, "judge": 1}
    assert found.splits == {"ethics": 1, "train": 1}
    assert found.origins == {"imported": 1, "model": 1}


def test_undone_and_replaced_ratings_skips_and_notes_do_not_count(database: Database) -> None:
    prompt = conversations.add(database, "Mto ni nini?", language="sw")
    sample = samples.new(prompt.id, "Maji.")
    samples.add(database, [sample])
    log.append(database, log.score(sample.id, 1, "ana"))
    log.append(database, log.score(sample.id, 2, "ana"))
    log.append(database, log.skip(sample.id, "ana"))
    log.append(database, log.skip(sample.id, "ana", cannot_judge=True))
    log.append(database, log.note(sample.id, "hmm", "ana"))
    log.append(database, log.label(sample.id, True, "ana"))
    log.undo(database, "ana")
    found = census.summary(database)
    assert (found.ratings, found.kinds) == (1, {"score": 1})
    assert found.languages["sw"].ratings == 1


def test_ratings_of_one_rater_by_language(database: Database) -> None:
    for language in ("en", "ja"):
        sample = samples.new(conversations.add(database, f"? {language}", language=language).id, "!")
        samples.add(database, [sample])
        log.append(database, log.score(sample.id, 3, "ana" if language == "en" else "amina"))
    assert census.ratings_by_language(database, "ana") == {"en": 1}
