"""What is made of the language of an answer: how much it is in its prompt's."""

from __future__ import annotations

import random

import pytest
import torch

from storage.records import Prompt
from trainer.algorithms.rollouts import Rollout
from trainer.config import RewardConfig
from trainer.examples import Examples, Response, Scored
from trainer.policy.decoding import Completion
from trainer.reward.batches import encode
from trainer.reward.language import is_in, leaning, probabilities
from trainer.reward.linear_fit import LinearFit
from trainer.reward.regression import Answers

TEXTS = {
    "en": "the light of the sun meets the air and what is blue is scattered most of all",
    "es": "la luz del sol choca con el aire y el azul se dispersa más que los otros colores",
    "fr": "la lumière du soleil rencontre les molécules et le bleu est dispersé dans le ciel",
    "de": "das Licht der Sonne trifft auf die Luft und das Blaue wird am meisten gestreut",
}


def said_in(language: str, chosen: random.Random) -> str:
    """Words of a language in another order and number."""
    words = TEXTS[language].split()
    return " ".join(chosen.sample(words, chosen.randint(9, len(words))))


def rated(first: int, prompts: int) -> list[tuple[Response, float]]:
    """Answers in each of four languages to prompts in these, liked where they are in the prompt's."""
    chosen, found = random.Random(first), []
    for number in range(first, first + prompts):
        asked = [*TEXTS][number % len(TEXTS)]
        prompt = Prompt(f"p{number}", f"{number}?", asked, "")
        for language in TEXTS:
            answer = Response(prompt, said_in(language, chosen), None, None)
            found.append((answer, (1.0 if language == asked else -1.0) + chosen.gauss(0, 0.3)))
    return found


@pytest.mark.parametrize("language", TEXTS)
def test_a_text_leans_towards_its_own_language_and_away_from_others(language):
    assert leaning(TEXTS[language], language) > 0.8
    assert leaning(TEXTS[language], f"{language.upper()}-XX") == leaning(TEXTS[language], language)
    assert all(leaning(TEXTS[other], language) < -0.8 for other in TEXTS if other != language)
    assert sum(probabilities(TEXTS[language]).values()) == pytest.approx(1, abs=1e-4)


def test_it_is_neutral_where_the_language_cannot_be_told():
    assert leaning("", "en") == leaning("42 + 1 = 43!", "en") == 0
    assert leaning(TEXTS["en"], "tlh") == leaning(TEXTS["en"], "") == 0, "the detector knows no such language"
    for few in ("Yes.", "No", "Ok", "Hm"):
        assert abs(leaning(few, "en")) < 0.1, few
    mixed = leaning(f"{TEXTS['en']} {TEXTS['de']}", "en")
    assert leaning(TEXTS["de"], "en") < mixed <= leaning(TEXTS["en"], "en")


def test_both_written_forms_of_norwegian_are_one():
    text = "Lyset fra solen treffer luften, og det blå blir spredt mest av alle fargene på himmelen."
    assert is_in(text, "no")
    assert leaning(text, "nb-NO") == leaning(text, "nn") == leaning(text, "no") > 0


def ranked(model, answers: list[tuple[Response, float]]) -> float:
    """The share of prompts whose best answer is the one in their language."""
    encoded = [encode(model.backbone, response) for response, _ in answers]
    languages = [response.prompt.language for response, _ in answers]
    rewards = model.score_responses(*zip(*encoded, strict=True), languages).view(-1, len(TEXTS))
    wanted = [[*TEXTS].index(language) for language in languages[:: len(TEXTS)]]
    return float((rewards.argmax(1) == torch.tensor(wanted)).float().mean())


def test_a_taste_for_answers_in_the_prompts_language_is_recovered(backbone):
    scores = [Scored(response, value, "amina") for response, value in rated(0, 24)]
    fit = LinearFit(backbone, Examples(scores=scores), RewardConfig(), 0)
    fit.advance()
    unseen = rated(100, 24)
    assert ranked(fit.model, unseen) > 0.9
    with torch.no_grad():
        fit.model.head.weight[-1] = 0
    assert ranked(fit.model, unseen) < 0.5, "of the answer alone nobody could tell"


def test_among_answers_that_are_all_in_their_language_chance_says_nothing_of_others(backbone):
    """What hardly varies is not blown up: no reward for changing the language is made of noise."""
    chosen = random.Random(3)
    prompts = [Prompt(f"p{number}", f"{number}?", "en", "") for number in range(24)]
    scores = [
        Scored(Response(prompt, said_in("en", chosen), None, None), chosen.gauss(0, 1), "amina")
        for prompt in prompts
        for _ in range(4)
    ]
    fit = LinearFit(backbone, Examples(scores=scores), RewardConfig(), 0)
    fit.advance()
    moved = 2 * float(fit.model.head.weight[-1].detach()) / sum(fit.model.parts) ** 0.5
    assert abs(moved) < 0.25


def test_the_same_is_read_when_fitting_and_of_a_rollout(backbone):
    fit = LinearFit(backbone, Examples(), RewardConfig(), 0)
    answers = [response for response, _ in rated(0, 4)]
    encoded = [encode(backbone, response) for response in answers]
    rollouts = [
        Rollout(response.prompt, asked, Completion(said, finish_reason="eos"), response.text)
        for response, (asked, said) in zip(answers, encoded, strict=True)
    ]
    expected = torch.tensor([leaning(response.text, response.prompt.language) for response in answers])
    known = fit.model.features_of(rollouts)
    torch.testing.assert_close(known[:, -1], expected)
    told = Answers.read(fit.model, answers).features[:, -1] * sum(fit.model.parts) ** 0.5
    torch.testing.assert_close(told.float(), expected)
    with torch.no_grad():
        fit.model.head.weight.zero_()[-1] = sum(fit.model.parts) ** 0.5
    layout = backbone.layout([asked for asked, _ in encoded], [said for _, said in encoded])
    trunk = backbone.trunk(layout)
    torch.testing.assert_close(fit.model.score(rollouts, trunk, layout, trunk)[0].plain, expected)
    torch.testing.assert_close(fit.model.rate(rollouts).plain, expected)
    languages = [response.prompt.language for response in answers]
    torch.testing.assert_close(fit.model.score_responses(*zip(*encoded, strict=True), languages), expected)
