"""AI feedback: a model rates what no person has rated. Nothing is learned, and no version comes of it."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from storage.languages import BadTagError, normal
from trainer.config import DeviceConfig
from trainer.lazily import lazily
from trainer.methods.method import Ask, Chart, Method, Recipe, Supply

if TYPE_CHECKING:
    from trainer.judge import work
else:
    work = lazily("trainer.judge.work")

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Judged(StrEnum):
    """What is rated: answers alone, with a score, or two to a prompt, with a preference."""

    SCORE = "score"
    PAIR = "pair"


class JudgeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who judges, what, and what it may cost. No key is in it: that is read where it is kept, when it is used."""

    kind: Annotated[tuple[Judged, ...], Meta(description="score or pair; both where none is given")] = ()
    language: Annotated[tuple[str, ...], Meta(description="prompts in this language; may be repeated")] = ()
    limit: Annotated[
        int, Meta(ge=0, description="how many items that nobody has rated to judge, the newest first; 0 for all")
    ] = 200
    calibrate: Annotated[
        int,
        Meta(
            ge=0, description="how many items that people have rated to judge as well, to know what the judge is worth"
        ),
    ] = 50
    rubric: Annotated[
        str, Meta(description="a TOML file with what to ask instead of the program's own rubric, by language")
    ] = ""
    name: Annotated[str, Meta(description="ratings are by ai:NAME; by default the model's name")] = ""
    endpoint: Annotated[
        str,
        Meta(description="ask this OpenAI-compatible address, such as http://127.0.0.1:8080/v1, not a local model"),
    ] = ""
    endpoint_model: Annotated[str, Meta(description="the model to ask for there")] = ""
    key_env: Annotated[
        str, Meta(description="the environment variable, or the name in the keyring, that holds the endpoint's key")
    ] = "OPENAI_API_KEY"
    timeout: Annotated[float, Meta(gt=0, description="seconds to wait for an answer of the endpoint")] = 60.0
    attempts: Annotated[int, Meta(ge=1, description="how often to ask the endpoint the same before giving up")] = 5
    parallel: Annotated[int, Meta(ge=1, le=64, description="questions put to the endpoint at once")] = 4
    max_tokens_spent: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="stop before more tokens are spent")
    ] = None

    def __post_init__(self) -> None:
        try:
            for tag in self.language:
                normal(tag)
        except BadTagError as error:
            raise ValueError(f"language {error}") from None
        # What could be a key is refused here, before anything is stored, and not repeated.
        if not _VARIABLE.fullmatch(self.key_env):
            raise ValueError("key_env is the name of a variable, not the key itself")
        try:
            url = urlsplit(self.endpoint)
            plain = url.scheme in ("http", "https") and url.hostname and "@" not in url.netloc
        except ValueError:
            plain = False
        if self.endpoint and not (plain and not url.query and not url.fragment):
            raise ValueError(
                "the endpoint must be an http or https address, such as http://127.0.0.1:8080/v1, without a name, a "
                "password or a query in it: a key comes from the environment"
            )
        if bool(self.endpoint) != bool(self.endpoint_model):
            raise ValueError("an endpoint and its model go together: give both")


class JudgeStage(DeviceConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """AI feedback."""

    model: Annotated[str, Meta(description="the local model that judges")] = "smollm2"
    judge: JudgeConfig = JudgeConfig()


METHOD = Method(
    name="judge",
    summary="a model rates what no person has rated",
    manual="""Have a model rate what no person has rated, by a rubric in the prompt's language.

    Answers get a score from 1 to 5, and pairs of answers to one prompt a preference; both are soft (3.4, or 0.8 for the
    first). A pair is asked in both orders, and the logits are averaged, so that a preference for what stands first has
    no say. Ratings are stored after every few items with source `ai` and rater ai:NAME; the same command goes on where
    it ended, and judges nothing twice by the same rubric. Only training prompts are judged. Some items that people have
    rated are judged as well: how far both agree is told here and by `workbench agreement`, and is what the judge's
    ratings weigh in a reward model.

    The key of an endpoint is sent to it and neither stored nor told.

    \b
      trainer judge --dry-run
      trainer judge --kind pair --language sw --limit 100
      trainer judge --endpoint https://api.openai.com/v1 --endpoint-model NAME --max-tokens-spent 200000
      trainer judge --rubric politeness.toml --name polite --json
    """,
    settings=JudgeStage,
    own="judge",
    work=lambda held, config: work.work(held, config),
    ready=lambda config, changed: work.with_file(config),
    plan=lambda workspace, config: work.plan(workspace, config),
    tells=("rater", "rubric", "already", "judged", "unreadable", "left", "stopped", "tokens", "weight", "languages",
           "agreement"),
    board=(
        Chart("items judged", "items", "judge/items", "{:.0f}", 0),
        Chart("score that it gives, 1 to 5", "score", "judge/score", "{:.2f}", 0, "", True),
        Chart("prefers what stands first, share (0.5 is no bias)", "first", "judge/first", "{:.2f}", 0, "", True),
        Chart("tokens spent", "tokens", "judge/tokens", "{:.0f}", 0),
    ),
    recipes=(
        Recipe(
            "a", "AI judge",
            "A model rates what nobody has rated, by a rubric in the prompt's language. What it says is marked as a "
            "model's, and weighs as far as it agrees with people. An endpoint's key comes from OPENAI_API_KEY or the "
            "keyring.",
            (
                Ask("judge.kind", "rates", "both, answers, pairs",
                    {"both": (), "answers": (Judged.SCORE,), "pairs": (Judged.PAIR,)}),
                Ask("judge.limit", "how many", "that nobody has rated; 0: all"),
                Ask("judge.calibrate", "of people's", "rated too, to tell its worth"),
                Ask("judge.language", "languages", "such as sw, en; empty: all"),
                Ask("model", "local model", "empty: the one in use"),
                Ask("judge.endpoint", "endpoint", "instead: http://127.0.0.1:8080/v1"),
                Ask("judge.endpoint_model", "its model", "as the endpoint calls it"),
                Ask("judge.max_tokens_spent", "most tokens", "to spend; empty: any"),
            ),
            ((Supply.ANSWERS, 1),),
        ),
    ),
)  # fmt: skip
