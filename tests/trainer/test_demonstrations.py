"""What is imitated: demonstrations and corrected answers of training prompts, and nothing else."""

from __future__ import annotations

import pytest

from storage import conversations, jobs, samples
from storage.errors import UsageError
from storage.feedback import log
from storage.records import Split
from trainer.demonstrations import check_enough, demonstrations

DIGEST = "digest of the model that learns"


@pytest.fixture
def store(database):
    """A function that stores a prompt with one answer and returns the answer's key."""

    def add(text: str, answer: str, language: str = "ar", split: Split = Split.TRAIN, **more: object) -> str:
        prompt = conversations.add(database, text, language=language, split=split)
        made = samples.new(prompt.id, answer, **more)
        samples.add(database, [made])
        return made.id

    return add


def texts(database, moment: str | None = None) -> list[tuple[str, str]]:
    found = demonstrations(database, DIGEST, moment)
    return [(response.prompt.text, response.text) for response in found.responses]


def test_demonstrations_and_edits_are_imitated_and_what_the_model_said_is_not(database, store):
    shown = store("ما الساعة؟", "الخامسة", origin="demonstration")
    rated = store("Quelle heure est-il ?", "hier", "fr")
    store("几点了？", "五点", "zh", origin="imported")
    edit = log.append(database, log.edit(rated, "cinq heures", "amina"))
    log.append(database, log.score(rated, 5, "amina"))
    found = demonstrations(database, DIGEST)
    assert texts(database) == [("ما الساعة؟", "الخامسة"), ("Quelle heure est-il ?", "cinq heures")]
    assert (found.sample_ids, found.rating_ids) == ([shown], [edit.id])
    assert found.languages() == {"ar": 1, "fr": 1}
    assert all(response.token_ids is None for response in found.responses)


def test_an_edit_that_was_undone_is_not_imitated(database, store):
    log.append(database, log.edit(store("Saa ngapi?", "x", "sw"), "saa tano", "amina"))
    before = demonstrations(database, DIGEST)
    log.undo(database, "amina")
    assert texts(database) == []
    assert before.digest() != demonstrations(database, DIGEST).digest()


def test_the_same_answer_is_imitated_once_and_blank_ones_never(database, store):
    key = store("Wie spät?", "fünf", "de", origin="demonstration")
    log.append_all(database, [log.edit(key, "fünf", "amina"), log.edit(key, "fünf Uhr", "juma")])
    log.append(database, log.edit(key, " \n", "wei"))
    store("Wie spät ist es?", "  ", "de", origin="demonstration")
    store("Quanto às horas?", "fünf", "pt", origin="demonstration")
    assert texts(database) == [("Wie spät?", "fünf"), ("Quanto às horas?", "fünf"), ("Wie spät?", "fünf Uhr")]


@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_held_out_and_ethics_prompts_are_never_imitated(database, store, split):
    key = store("秘密", "x", "zh", split=split, origin="demonstration")
    log.append(database, log.edit(key, "y", "amina"))
    found = demonstrations(database, DIGEST)
    assert (found.responses, found.sample_ids, found.rating_ids) == ([], [], [])


def test_what_there_was_at_a_moment_is_imitated_whatever_came_later(database, store):
    key = store("समय क्या है?", "पाँच", "hi", origin="demonstration")
    log.append(database, log.edit(key, "पाँच बजे", "amina"))
    then = jobs.now(database)
    before = texts(database)
    store("कब?", "कल", "hi", origin="demonstration")
    log.undo(database, "amina")
    assert texts(database) == [("समय क्या है?", "पाँच"), ("कब?", "कल")]
    assert texts(database, then) == before == [("समय क्या है?", "पाँच"), ("समय क्या है?", "पाँच बजे")]


def test_too_few_are_refused_with_numbers(database, store):
    key = store("¿Qué hora es?", "cinco", "es", origin="demonstration")
    log.append(database, log.edit(key, "las cinco", "amina"))
    found = demonstrations(database, DIGEST)
    with pytest.raises(UsageError, match=r"1 demonstration and 1 edit .* 2 different answers; 3") as caught:
        check_enough(found, 3)
    assert "correct 1 more answer in the app" in caught.value.hint
    check_enough(found, 2)
