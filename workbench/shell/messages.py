"""News, as they reach the screen in front: each says what has changed, so that a screen draws that and no more.

A screen that comes to the front reads everything anew, and needs no news from before.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.records import Job


@dataclass(frozen=True)
class News:
    """Something has changed."""


@dataclass(frozen=True)
class Opened(News):
    """The workspace can be read from now on."""


@dataclass(frozen=True)
class SessionChanged(News):
    """The researcher has chosen otherwise: language, parameters, who rates."""


@dataclass(frozen=True)
class RatingsChanged(News):
    """Somebody has rated, or taken a rating back."""


@dataclass(frozen=True)
class AnswersChanged(News):
    """There are new answers."""


@dataclass(frozen=True)
class VersionsChanged(News):
    """There is a new version, something new is known of one, or another one is served."""


@dataclass(frozen=True)
class Measured(News):
    """A version was evaluated, or a reward model was fitted."""


@dataclass(frozen=True)
class TrainerMoved(News):
    """The trainer has begun, gone on or stopped: its state, its figures, its log."""


@dataclass(frozen=True)
class TrainingDone(News):
    """A job has ended well."""

    job: Job


@dataclass(frozen=True)
class EngineMoved(News):
    """The engine's state, or the exchange on the Prompt screen as a whole."""


@dataclass(frozen=True)
class Streamed(News):
    """A piece of the answers being written."""
