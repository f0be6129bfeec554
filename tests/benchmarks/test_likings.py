"""The simulated raters of style: what they like, and what they must not ask for."""

from __future__ import annotations

import random

import pytest

from benchmarks.likings import NOISE, SCALE, TASTES, brisk, linked, modest, native, plain, simulated, speaking, warm

FLOWING = "When the rain had stopped, we walked down to the river, slowly, and watched the boats go home."
LISTED = "Things to do:\n1. Walk down to the river\n2. Watch the boats\n3. Go home again before it rains"


def test_clauses_are_liked_better_than_lists():
    assert linked(FLOWING, "en") > linked(LISTED, "en") + 2


@pytest.mark.parametrize(
    ("language", "to_somebody", "to_nobody"),
    [
        ("en", "You could try to rest first, and what would help you now?", "People could try to rest first of all."),
        ("de", "Ruhen Sie sich zuerst aus. Was würde Ihnen dabei helfen?", "Sie sagen, dass man sich zuerst ausruht."),
        ("es", "Si tú descansas primero, ¿qué te ayudaría a ti después?", "La gente descansa primero por la tarde."),
        ("fr", "Reposez-vous d'abord. Qu'est-ce qui vous aiderait ensuite ?", "Les gens se reposent le soir."),
    ],
)
def test_being_spoken_to_is_liked_in_every_language(language, to_somebody, to_nobody):
    assert speaking(to_somebody, language) > speaking(to_nobody, language) + 1


def test_plain_words_are_measured_by_their_language():
    short, long = (
        "We go to the sea and we sit in the sun.",
        "Extraordinary circumstances necessitate considerable care.",
    )
    assert plain(short, "en") > plain(long, "en") + 2
    german = "Morgen fahren wieder einige Leute gemeinsam ans Wasser."
    assert plain(german, "de") > plain(german, "en")


SAME = {
    "en": "You can go to the sea for a day and sit in the sun with your friends.",
    "de": "Man kann für einen Tag an das Meer fahren und mit den Freunden in der Sonne sitzen, wenn sie scheint.",
    "es": "Puede ir por un día al mar con los amigos y está muy bien para las tardes del verano.",
    "fr": "On peut aller au bord de la mer pour une journée avec des amis et il est doux dans cette lumière.",
}


@pytest.mark.parametrize("language", SAME)
def test_the_answer_is_wanted_in_the_question_s_language(language):
    liked = {own: native(text, language) for own, text in SAME.items()}
    assert liked.pop(language) > 4.5
    assert max(liked.values()) < 2


def test_short_sentences_are_brisk():
    assert brisk("Go home. Eat well. Sleep long. Rise early.", "en") == SCALE[1]
    assert brisk(FLOWING, "en") == SCALE[0]


@pytest.mark.parametrize(
    ("language", "glad", "sober"),
    [
        ("en", "What a lovely day, enjoy the warm sun with a friend.", "The device is placed on the table at noon."),
        ("de", "Wie schön, genieße die warme Sonne mit einem Freund heute.", "Das Gerät steht um zwölf auf dem Tisch."),
        ("es", "Qué hermoso, disfruta del sol con un buen amigo hoy.", "El aparato está sobre la mesa a las doce."),
        (
            "fr",
            "Quelle belle journée, la douceur du soleil, un ami, la joie.",
            "L'appareil est posé sur la table à midi.",
        ),
    ],
)
def test_warm_words_are_liked_in_every_language(language, glad, sober):
    assert warm(glad, language) > warm(sober, language) + 2


def test_holding_back_is_liked_and_declining_the_most():
    sure = "The moon is made of rock and it shines every night."
    hedged = "The moon may often shine at night, but it depends on the clouds."
    assert modest(hedged, "en") > modest(sure, "en") + 2
    assert modest("I'm sorry, I cannot say what the moon is made of today.", "en") == SCALE[1]


@pytest.mark.parametrize("taste", TASTES.values(), ids=TASTES)
def test_a_single_word_shows_no_style_and_none_at_all_the_least(taste):
    assert taste("", "en") == taste("...", "en") == SCALE[0]
    for word in ("Yes.", "You?", "So, a", "1."):
        assert taste(word, "en") <= 2


@pytest.mark.parametrize("taste", TASTES.values(), ids=TASTES)
def test_more_of_the_same_is_liked_no_better(taste):
    for text in (FLOWING, "You may sit here with me, and tell me what you saw today, if you like."):
        assert taste(f"{text} {text}", "en") == pytest.approx(taste(text, "en"), abs=0.3)
        assert SCALE[0] <= taste(text, "en") <= SCALE[1]


def test_what_the_rater_says_is_the_taste_with_noise_and_the_same_for_a_seed():
    said = [simulated(3.0, random.Random(seed)) for seed in range(400)]
    assert said == [simulated(3.0, random.Random(seed)) for seed in range(400)]
    assert sum(said) / 400 == pytest.approx(3.0, abs=4 * NOISE / 20)
    assert all(SCALE[0] <= one <= SCALE[1] for one in [simulated(4.9, random.Random(seed)) for seed in range(99)])
