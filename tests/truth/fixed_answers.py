"""What the tests of the three methods that learn from a fixed set of answers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from storage.records import Prompt
from trainer.checkpoints import load, save
from trainer.examples import Response
from trainer.learner import Figures, PolicyLearner
from trainer.policy.backbone import Backbone
from trainer.policy.decoding import Decoder

QUESTIONS = {
    "en": "Which way to the river?",
    "es": "¿Por dónde se va al río?",
    "zh": "去河边怎么走？",
    "sw": "Njia ya mtoni ni ipi?",
    "ar": "أين الطريق إلى النهر؟",
    "fr": "Par où va-t-on à la rivière ?",
    "hi": "नदी का रास्ता किधर है?",
    "de": "Wo geht es zum Fluss?",
}
ANSWERS = ("left", "right", "back", "up")


def prompt_in(language: str) -> Prompt:
    return Prompt(f"prompt {language}", QUESTIONS[language], language, "")


def written(prompt: Prompt, text: str) -> Response:
    """An answer from outside."""
    return Response(prompt, text, None, None)


def advance(learner: PolicyLearner, count: int) -> list[Figures]:
    """The figures of some steps, without those that a clock measured."""
    found = [learner.advance().figures for _ in range(count)]
    return [{key: value for key, value in one.items() if not key[0].startswith("timing/")} for one in found]


def finished(learner: PolicyLearner) -> Figures:
    """The figures of the last step of a whole run."""
    return advance(learner, learner.steps)[-1]


@torch.inference_mode()
def log_likelihood(decoder: Decoder, prompt: Sequence[int], response: Sequence[int]) -> float:
    """How likely the served model says exactly this, in nats."""
    total = 0.0
    for place, token in enumerate(response):
        before = [*prompt, *response[:place]]
        logits, _ = decoder.network.prefill([before], torch.tensor([0]), len(before) + 1)
        total += float(logits[0].float().log_softmax(-1)[token])
    return total


def most_likely(backbone: Backbone, decoder: Decoder, prompt: Sequence[int], texts: Sequence[str]) -> str:
    """Which of some answers the served model gives most likely."""
    return max(texts, key=lambda text: log_likelihood(decoder, prompt, backbone.tokenizer.encode_response(text)))


def state_of(learner: PolicyLearner) -> dict[str, torch.Tensor]:
    """Everything that learning changes, as tensors by name."""
    state = {}
    for name, module in learner.modules().items():
        state |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in learner.optimizers().items():
        for number, values in optimizer.state_dict()["state"].items():
            state |= {f"{name}.{number}.{key}": value for key, value in values.items()}
    return state


def assert_resumes_exactly(new: Callable[[], PolicyLearner], folder: Path) -> None:
    """As many steps at once as in two halves with a checkpoint between end in the same bits."""
    unbroken, first, second = new(), new(), new()
    assert unbroken.steps >= 4
    half = unbroken.steps // 2
    figures = advance(unbroken, 2 * half)
    before = advance(first, half)
    save(folder, first)
    load(folder, second)
    assert second.step == half
    assert before + advance(second, half) == figures
    ours, theirs = state_of(second), state_of(unbroken)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert second.state() == unbroken.state()
    fresh = state_of(new())
    moved = {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], theirs[name])}
    assert moved == set(unbroken.modules()), "all that learns has moved, so that its return is tested"
