"""Every rating is foretold once, by a model that saw nothing of its prompt; and what twice as many ratings brought."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records import Prompt
from trainer.examples import Pair, Response, Scored
from trainer.reward.crossfit import cross_fit, foretold, prompt_folds
from trainer.reward.regression import Answers, regress
from trainer.reward.report import HELP, TOO_FEW

SIZE = 30


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rated(seed: int, prompts: dict[str, int], each: int = 3, noise: float = 0.2) -> tuple[Answers, list[Scored]]:
    """Scored answers with a planted reward and levels of prompts; `prompts` counts them by language."""
    asked = [
        Prompt(f"{language}{n}", f"{n}?", language, "") for language, count in prompts.items() for n in range(count)
    ]
    responses = [Response(prompt, f"answer {number}", None, None) for prompt in asked for number in range(each)]
    features = drawn(seed, len(responses), SIZE)
    levels = drawn(seed + 1, len(asked)).repeat_interleave(each)
    values = features @ drawn(seed + 2, SIZE) / SIZE**0.5 + levels + noise * drawn(seed + 3, len(responses))
    values = (values - values.mean()) / values.std().clamp_min(1e-6)
    answers = Answers({one: row for row, one in enumerate(responses)}, [7] * len(responses), features, (20, 10))
    return answers, [Scored(one, float(value), "amina") for one, value in zip(responses, values, strict=True)]


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.sampled_from(["en", "de", "sw", "ja"]), st.integers(1, 13), min_size=1))
def test_folds_are_balanced_in_all_and_within_each_language(prompts: dict[str, int]):
    _, scores = rated(0, prompts, each=2)
    found = prompt_folds(scores)
    assert set(found) == {one.prompt.id for one in scores}
    for language in (None, *prompts):
        counts = Counter(fold for prompt, fold in found.items() if language is None or prompt.startswith(language))
        assert max(counts.values()) - min(counts.get(fold, 0) for fold in range(5)) <= 1


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.dictionaries(st.sampled_from(["en", "de", "sw"]), st.integers(1, 4), min_size=2))
def test_each_rating_is_foretold_once_and_says_nothing_of_itself(seed: int, prompts: dict[str, int]):
    answers, scores = rated(seed, prompts)
    folds = prompt_folds(scores)
    plain = foretold(answers, scores, folds, set(folds))
    assert list(plain.keys() ^ answers.rows.keys()) == []
    chosen = random.Random(seed).choice(scores).prompt.id
    others = [dataclasses.replace(one, value=5 - one.value) if one.prompt.id == chosen else one for one in scores]
    changed = foretold(answers, others, folds, set(folds))
    for response, reward in plain.items():
        if response.prompt.id == chosen:
            assert changed[response] == reward, "whatever was said of this prompt"
    learners = [response for response in plain if folds[response.prompt.id] != folds[chosen]]
    assert not learners or any(changed[response] != plain[response] for response in learners)


def test_the_report_is_of_all_ratings_and_says_when_more_would_help():
    answers, scores = rated(3, {"en": 16, "de": 16, "sw": 2})
    found = cross_fit(answers, scores, regress(answers, scores), learned=60)
    assert (found.examples, found.held_out, found.held_out_prompts, found.folds) == (60, 102, 34, 5)
    assert (found.within_prompt_n, found.within_prompt_prompts) == (102, 34), "three pairs of three answers"
    assert found.within_prompt_accuracy > 0.7
    low, high = found.within_prompt_accuracy_interval
    assert low < found.within_prompt_accuracy < high
    assert found.between_prompts_n == 34
    assert found.between_prompts_spearman < 0.7, "levels cannot be foretold"
    assert "learning_curve" not in found.reasons
    curve = found.learning_curve
    assert curve.overall.half < curve.overall.all == pytest.approx(found.within_prompt_accuracy)
    assert curve.overall.gain == pytest.approx(curve.overall.all - curve.overall.half)
    assert (curve.overall.verdict == HELP) == (curve.overall.gain_interval[0] > 0)
    assert curve.languages["sw"].verdict == TOO_FEW
    assert curve.languages["sw"].all is None
    assert curve.languages["sw"].reason == "2 prompts with answers that were rated differently, 6 are needed"
    assert "too few to tell: sw" in found.sentence()
    json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_pairs_are_compared_within_their_prompt_and_tell_no_level():
    answers, scores = rated(5, {"en": 10, "de": 10}, each=2)
    pairs = [
        Pair(one.response, other.response, float(one.value > other.value), "juma")
        for one, other in zip(scores[::2], scores[1::2], strict=True)
    ]
    found = cross_fit(answers, pairs, regress(answers, pairs), learned=12)
    assert (found.within_prompt_n, found.pair_n) == (20, 20)
    assert found.within_prompt_accuracy == found.pair_accuracy
    assert found.between_prompts_spearman is None
    assert found.reasons["between_prompts_spearman"].startswith("0 prompts of languages that have another one")


def test_a_single_prompt_foretells_nothing_and_says_so():
    answers, scores = rated(7, {"en": 1}, each=8)
    found = cross_fit(answers, scores, regress(answers, scores), learned=8)
    assert found.held_out == 0
    assert found.within_prompt_accuracy is found.spearman is None
    assert found.reasons["within_prompt_accuracy"] == "no two held-out answers to a prompt were rated differently"
    assert found.learning_curve.overall.verdict == TOO_FEW
