"""A judge in this process: the likelihood that a local model gives to each label as the first token of its answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from storage.errors import UsageError
from storage.records import Message
from trainer.judge.rubric import Question
from trainer.judge.spending import Purse, SpentError
from trainer.judge.verdicts import Verdict
from trainer.policy.backbone import Backbone
from trainer.policy.memory import Shape

MOST_TOKENS = 4096  # of padded questions that are read at once


class LocalJudge:
    """A model that is asked without being sampled: deterministic, with log-probabilities of all labels.

    Args:
        purse: what is spent goes into it.
    """

    def __init__(self, backbone: Backbone, purse: Purse) -> None:
        self.backbone, self.purse = backbone, purse
        self.context = Shape.read(backbone.folder.path).context
        self._labels: dict[tuple[str, ...], list[int]] = {}

    def tokens(self, question: Question) -> int:
        return len(self._encoded(question)) + 1

    def ask(self, questions: Sequence[Question]) -> list[Verdict | Exception | None]:
        found: list[Verdict | Exception | None] = [None] * len(questions)
        encoded = [self._encoded(question) for question in questions]
        run: list[int] = []
        for place, ids in enumerate(encoded):
            if len(ids) >= self.context:
                continue  # more than the model can read: no verdict
            try:
                self.purse.reserve(len(ids) + 1)
            except SpentError as error:
                found[place] = error
                continue
            longest = max([len(ids), *(len(encoded[other]) for other in run)]) + 1
            if run and longest * (len(run) + 1) > MOST_TOKENS:
                self._read(questions, encoded, run, found)
                run = []
            run.append(place)
        if run:
            self._read(questions, encoded, run, found)
        return found

    @torch.no_grad()
    def _read(
        self,
        questions: Sequence[Question],
        encoded: Sequence[list[int]],
        run: Sequence[int],
        found: list[Verdict | Exception | None],
    ) -> None:
        """Ask some of the questions at once; their verdicts go into their places in `found`."""
        labels = [self._label_ids(questions[place].labels) for place in run]
        layout = self.backbone.layout([encoded[place] for place in run], [ids[:1] for ids in labels])
        hidden = self.backbone.hidden(layout, None)
        logits = self.backbone.network.head.logits(hidden[layout.before])
        for place, ids, row in zip(run, labels, logits, strict=True):
            found[place] = Verdict.of(row[ids].tolist())
            size = len(encoded[place])
            self.purse.settle(size + 1, size, 1)

    def _encoded(self, question: Question) -> list[int]:
        return self.backbone.tokenizer.encode_messages([Message("user", question.text)])

    def _label_ids(self, labels: tuple[str, ...]) -> list[int]:
        """The token that tells each label.

        Raises:
            UsageError: it is the same of two of them.
        """
        if labels not in self._labels:
            # Where a tokenizer puts a space of its own before a text, all begin with it: the last token tells them.
            told = [self.backbone.tokenizer.encode_response(label, end=False)[-1] for label in labels]
            if len(set(told)) < len(labels):
                which = ", ".join(labels)
                raise UsageError(f"the model's tokenizer has no token each for {which}", "judge with another model")
            self._labels[labels] = told
        return self._labels[labels]
