"""How many tokens a judge has cost, and the most that it may."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from storage.errors import WorkbenchError


class SpentError(WorkbenchError):
    """The next question would cost more than is left."""


class Purse:
    """Counts tokens, for several threads.

    Args:
        most: what may be spent; None for anything.

    Attributes:
        prompt, completion: what was spent, as told by the judge.
        estimated: what was spent where nothing was told: of requests that failed on the way, or by an endpoint that
            counts none.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self.prompt = self.completion = self.estimated = 0
        self._reserved = 0
        self._lock = threading.Lock()

    @classmethod
    def recorded(cls, most: int | None, figures: Mapping[str, float]) -> Purse:
        """One from which earlier attempts at a job have spent what they recorded."""
        purse = cls(most)
        for name in ("prompt", "completion", "estimated"):
            setattr(purse, name, int(figures.get(f"judge/{name}_tokens", 0)))
        return purse

    @property
    def total(self) -> int:
        return self.prompt + self.completion + self.estimated

    @property
    def figures(self) -> dict[tuple[str, str | None], float]:
        """What was spent, as a job records it."""
        spent = {"tokens": self.total, "prompt_tokens": self.prompt, "completion_tokens": self.completion,
                 "estimated_tokens": self.estimated}  # fmt: skip
        return {(f"judge/{name}", None): count for name, count in spent.items()}

    def reserve(self, tokens: int) -> None:
        """Put aside what a question is about to cost.

        Raises:
            SpentError: it is more than is left.
        """
        with self._lock:
            if self.most is not None and self.total + self._reserved + tokens > self.most:
                raise SpentError(f"the next question would go beyond {self.most} tokens (--max-tokens-spent)")
            self._reserved += tokens

    def settle(self, reserved: int, prompt: int = 0, completion: int = 0, *, estimated: int = 0) -> None:
        """What it did cost."""
        with self._lock:
            self._reserved -= reserved
            self.prompt += prompt
            self.completion += completion
            self.estimated += estimated


def about(text: str) -> int:
    """About how many tokens a text has: a token in four bytes of UTF-8, which is near for most scripts."""
    return len(text.encode(errors="replace")) // 4 + 1
