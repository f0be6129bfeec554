"""The things that travel between rooms: one frozen record for each table."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

import msgspec

from storage.feedback.kinds import RatingKind as RatingKind


class Split(StrEnum):
    """What a prompt may be used for; only `train` prompts ever enter a training batch."""

    TRAIN = "train"
    HELD_OUT = "held-out"
    ETHICS = "ethics"


class Source(StrEnum):
    """Who or what produced a rating."""

    HUMAN = "human"
    AI = "ai"
    IMPORTED = "imported"
    SIMULATED = "simulated"


class Choice(StrEnum):
    """The answer to a preference pair: sample `a`, sample `b`, no difference, or neither acceptable."""

    A = "a"
    B = "b"
    TIE = "tie"
    BOTH_BAD = "both-bad"


class JobState(StrEnum):
    """Life of a job. `paused` jobs left a checkpoint and can be resumed."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


class VersionState(StrEnum):
    """Life of a version of the weights."""

    CANDIDATE = "candidate"
    PUBLISHED = "published"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled-back"


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every parameter that shapes a sampled answer; stored with each sample."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0 keeps the whole vocabulary
    max_new_tokens: int = 128
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError("temperature must be 0 (greedy) or more")
        if not 0 < self.top_p <= 1:
            raise ValueError("top_p must lie in (0, 1]")
        if self.top_k < 0:
            raise ValueError("top_k must be 0 (off) or more")
        if self.max_new_tokens < 1:
            raise ValueError("max_new_tokens must be 1 or more")
        if self.repetition_penalty <= 0:
            raise ValueError("repetition_penalty must be above 0")


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation, exactly as it was said."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(msgspec.Struct, frozen=True):
    """Something asked, in one language (`language` is a BCP 47 tag, `und` when unknown).

    It is a list of messages that ends with the user's: `text` is the last one, `earlier` are those before it, and
    `system` is what a system message says that they begin with.
    """

    id: str
    text: str
    language: str
    created_at: str
    system: str = ""
    task: str = ""
    split: Split = Split.TRAIN
    origin: str = "typed"
    earlier: tuple[Message, ...] = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """All turns, from the system message, if there is one, to the user's last."""
        return messages_of(self.text, self.system, self.earlier)

    @property
    def written(self) -> str | list[dict[str, str]]:
        """The prompt as records hold it: the text of one turn without a system message, else the messages."""
        if not self.system and not self.earlier:
            return self.text
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def transcript(self) -> str:
        """What was said, to be read: the text of one turn, or every turn after the name of who said it."""
        if not self.earlier:
            return self.text
        turns = messages_of(self.text, "", self.earlier)
        return "\n\n".join(f"{message.role}: {message.content}" for message in turns)


class Change(msgspec.Struct, frozen=True):
    """Something that was corrected about a prompt: a `field` of it, which `was` something else, when and by whom."""

    field: Literal["language", "task", "split"]
    was: str
    became: str
    made_by: str
    created_at: str


def messages_of(text: str, system: str = "", earlier: tuple[Message, ...] = ()) -> tuple[Message, ...]:
    """A prompt as messages, from its parts."""
    first = (Message("system", system),) if system else ()
    return (*first, *earlier, Message("user", text))


def parts_of(messages: Sequence[Message]) -> tuple[str, str, tuple[Message, ...]]:
    """`(text, system, earlier)` of messages that end with the user's; :func:`messages_of` puts them together again."""
    assert messages[-1].role == "user", "a prompt ends with the user's message"
    *earlier, last = messages
    system = ""
    if earlier and earlier[0].role == "system" and earlier[0].content:
        system = earlier.pop(0).content
    return last.content, system, tuple(earlier)


class Sample(msgspec.Struct, frozen=True):
    """One answer, exactly as generated. `version` is None when it came from outside (imported or written)."""

    id: str
    prompt_id: str
    text: str
    created_at: str
    version: str | None = None
    token_ids: list[int] | None = None
    finish_reason: str = ""  # eos, length, cancelled; empty for texts from outside
    sampling: Sampling | None = None
    seed: int | None = None
    group_id: str | None = None
    position: int = 0
    origin: str = "model"  # model, imported, demonstration, edit
    left_out: int = 0  # messages of the prompt, the earliest ones, that the model's context had no room for


class Rating(msgspec.Struct, frozen=True):
    """One append-only event of feedback.

    `value` is the score on `[scale_low, scale_high]`, or 1/0 for a label. A pair names `sample_id` (a) and
    `other_sample_id` (b), `choice`, and `shown_order` (`ab` when a stood left); its `value`, where a judge gave one, is
    how probably a is the better one.
    """

    id: str
    created_at: str
    rater: str
    kind: RatingKind
    sample_id: str | None = None
    other_sample_id: str | None = None
    value: float | None = None
    choice: Choice | None = None
    text: str | None = None  # edit, note or outcome
    tags: dict[str, Any] | None = None
    attribute: str = "overall"
    shown_order: str | None = None
    blind: bool = False
    duration_ms: int | None = None
    source: Source = Source.HUMAN
    scale_low: float | None = None
    scale_high: float | None = None
    guideline: str = ""
    supersedes: str | None = None
    gesture: str | None = None  # shared by what was said with one key
    slice: str | None = None  # of the review queue that it came from, see storage.feedback.mix


class Begun(msgspec.Struct, frozen=True):
    """Where the workspace stood when a job first began: the last sequence of each table, which is what it learns from
    and goes on from, whatever any clock says."""

    ratings: int = 0
    prompts: int = 0
    samples: int = 0
    version_events: int = 0
    reward_models: int = 0


class Job(msgspec.Struct, frozen=True):
    """One run of a trainer stage. `fence` grows with each claim; only its holder may write."""

    id: str
    kind: str
    config: dict[str, Any]
    state: JobState
    created_at: str
    step: int = 0
    steps: int = 0
    stage: str = ""
    attempts: int = 0
    fence: int = 0
    worker: str | None = None
    pid: int | None = None
    lease_until: str | None = None
    heartbeat_at: str | None = None
    cancel_requested: bool = False
    checkpoint: str | None = None  # folder, relative to the workspace
    log: str | None = None  # file, relative to the workspace
    error: str | None = None
    hint: str | None = None
    result: dict[str, Any] | None = None
    begun: Begun | None = None
    started_at: str | None = None
    finished_at: str | None = None

    @property
    def feedback_sequence(self) -> int | None:
        """The last event of feedback that the job may learn from; None before it has begun."""
        return None if self.begun is None else self.begun.ratings


class Metric(msgspec.Struct, frozen=True):
    """One number of one step; `language` is None for the figure over all languages."""

    step: int
    name: str
    value: float | None
    language: str | None = None


class Rollout(msgspec.Struct, frozen=True):
    """What the policy said at a step, kept for the eye."""

    id: str
    job_id: str
    step: int
    prompt: str
    language: str
    text: str
    reward: float
    kl: float
    tokens: int


class Version(msgspec.Struct, frozen=True):
    """Weights that can be served. `file` is relative to the workspace; None for an untouched base model."""

    id: str
    name: str
    base_model: str
    base_digest: str
    state: VersionState
    created_at: str
    kind: str = "lora"  # base, lora or full
    parent: str | None = None
    job_id: str | None = None
    step: int | None = None
    file: str | None = None
    sha256: str | None = None
    gates: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {}


class RewardModel(msgspec.Struct, frozen=True):
    """A fitted reward model: adapter and head in `file`, digest of the ratings it learned from, quality figures."""

    id: str
    name: str
    base_model: str
    base_digest: str
    file: str
    sha256: str
    data_digest: str
    created_at: str
    job_id: str | None = None
    metrics: dict[str, Any] = {}


class Evaluation(msgspec.Struct, frozen=True):
    """One measured figure of one version: mean with its interval over `n` units.

    `language` is None for all languages together. Where `against` names a version, it is how much better than that one.
    """

    id: str
    version: str
    suite: str
    metric: str
    value: float
    n: int
    created_at: str
    language: str | None = None
    low: float | None = None
    high: float | None = None
    job_id: str | None = None
    against: str | None = None
