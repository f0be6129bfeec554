"""Nothing ever learns from a held-out prompt: every method, on typed prompts, and again after more were typed."""

from __future__ import annotations

import json
import unicodedata

import msgspec
import pytest
from rated_workspace import LANGUAGES
from tiny_model import CORPUS

from storage import conversations, jobs, metrics, samples
from storage.database import Database
from storage.feedback import log
from storage.records import Choice, Message, RatingKind, Split
from trainer import leaks, rewards
from trainer.algorithms import comparisons, hindsight, ilql, ppo, sft
from trainer.job import HeldJob
from trainer.methods import bestof
from workbench.cli import cli as workbench
from workbench.cli import run_command

GATE = ("--gate-prompts", "4", "--gate-max-new-tokens", "4", "--no-publish")
SMALL = ("--rank", "4", "--steps", "1", "--batch", "4")
ROUND = (*SMALL, "--answers", "2", "--minibatch", "4", "--max-new-tokens", "4")
FIT = ("--reward-rank", "4", "--reward-epochs", "1")
METHODS = {
    "reward adapter": ("--rank", "4", "--epochs", "1", "--kind", "adapter"),
    "reward": (),
    "run": (*ROUND, *FIT, "--sft-steps", "1", *GATE),
    "sft": (*SMALL, *GATE),
    "ppo": (*ROUND, *GATE),
    "rloo": (*ROUND, *GATE),
    "reinforce": (*ROUND, *GATE),
    "grpo": (*ROUND, *GATE),
    "ppo on a table": (*ROUND, "--reward-model", "table", *GATE),
    "dpo": (*SMALL, *GATE),
    "dpo with kto": (*SMALL, "--loss", "kto", *GATE),
    "best-of-n": ("--rank", "4", "--prompts", "40", "--answers", "2", "--max-new-tokens", "4", "--batch", "40", *GATE),
    "ilql": (*SMALL, *GATE),
    "hindsight": (*SMALL, *GATE),
    "hindsight chain": (*SMALL, "--relabelling", "chain", *GATE),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def given(monkeypatch) -> dict[str, set[str]]:
    """The texts of all prompts that each kind of learner was given, by its name."""
    seen: dict[str, set[str]] = {}

    def spy(module, name, prompts_of):
        real = getattr(module, name)

        def learner(backbone, *arguments, **named):
            seen.setdefault(name, set()).update(prompt.text for prompt in prompts_of(*arguments, **named))
            return real(backbone, *arguments, **named)

        monkeypatch.setattr(module, name, learner)

    spy(ppo, "Ppo", lambda reward, asked, *_, rated, **named: [*asked, *(answer.prompt for answer in rated)])
    spy(sft, "sft", lambda found, *_: [response.prompt for response in found.responses])
    spy(sft, "demonstrated_rows", lambda found, *_: [response.prompt for response in found.responses])
    spy(ilql, "Ilql", lambda found, *_: [outcome.response.prompt for outcome in found])
    spy(hindsight, "relabelled_rows", lambda found, told, *_: [one.response.prompt for one in (*found, *told)])
    spy(bestof, "BestOf", lambda reward, asked, *_: asked)
    spy(comparisons, "comparisons", lambda pairs: [pair.prompt for pair in pairs])
    spy(comparisons, "judged", lambda examples, minimum: [example.prompt for example in examples.every()])
    for fit in ("RewardFit", "LinearFit"):
        spy(rewards, fit, lambda examples, *_: [example.prompt for example in examples.every()])
    return seen


def type_and_rate(database: Database, first: int, count: int) -> None:
    """Prompts as the app stores them, in ten languages, each with every kind of feedback."""
    for number in range(first, first + count):
        place = number % len(LANGUAGES)
        words = CORPUS[place].split()
        prompt = conversations.add(database, f"{words[0]} {number}", language=LANGUAGES[place])
        good, bad = (samples.new(prompt.id, " ".join(words[1 : 2 + length])) for length in (2, 1))
        shown = samples.new(prompt.id, " ".join(words[:4]), origin="demonstration")
        samples.add(database, [good, bad, shown])
        told = msgspec.structs.replace(log.note(bad.id, "asked again", "amina"), kind=RatingKind.OUTCOME)
        log.append_all(
            database,
            [
                log.score(good.id, 4 + number % 2, "amina"),
                log.score(bad.id, 1 + number % 2, "amina"),
                log.label(good.id, True, "juma"),
                log.pair(good.id, bad.id, Choice.A, "juma"),
                log.edit(bad.id, " ".join(words[:3]), "juma"),
                told,
            ],
        )


# Before more are typed one way of each kind: a reward model, a policy, and what learns from the ratings alone.
FIRST = ("reward", "ppo", "sft", "dpo")


def test_no_method_learns_from_a_held_out_prompt_before_or_after_more_are_typed(trainer, database, given):
    type_and_rate(database, 0, 40)
    decided = {prompt.text: prompt.split for prompt in conversations.recent(database)}
    assert list(decided.values()).count(Split.HELD_OUT) >= 4
    for methods in (FIRST, METHODS):
        held_out = {prompt.text for prompt in conversations.by_split(database, Split.HELD_OUT)}
        practice = {prompt.text for prompt in conversations.by_split(database, Split.TRAIN)}
        for method in methods:
            given.clear()
            code, found = trainer(method.split()[0], *METHODS[method])
            assert (code, found["state"]) == (0, "done"), (method, found["error"])
            assert given, method
            assert all(asked and asked <= practice for asked in given.values()), method
            practised = {rollout.prompt for rollout in metrics.recent_rollouts(database, found["job"], 1000)}
            assert not practised & held_out, method
            assert bool(practised) == bool({"Ppo", "BestOf"} & given.keys()), method
        assert learned_from(database) <= practice
        if methods is FIRST:
            type_and_rate(database, 40, 25)
            now = {prompt.text: prompt.split for prompt in conversations.recent(database)}
            assert len(now) == 65
            assert {text: now[text] for text in decided} == decided
    linked = database.scalar("SELECT count(DISTINCT job_id) FROM job_ratings")
    assert linked == 3 + 10, "all but those that take the reward model as it is"


def learned_from(database: Database) -> set[str]:
    """The prompts that any job's ratings lead to."""
    return {
        row["text"]
        for row in database.rows(
            """SELECT DISTINCT prompts.text AS text FROM job_ratings JOIN ratings ON ratings.id = rating_id
               JOIN samples ON samples.id IN (sample_id, other_sample_id) JOIN prompts ON prompts.id = prompt_id"""
        )
    }


def test_with_one_held_out_prompt_a_job_trains_and_says_that_it_can_tell_no_gain(trainer, database, capsys):
    type_and_rate(database, 0, 12)
    for prompt in conversations.by_split(database, Split.HELD_OUT):
        database.execute("UPDATE main.prompts SET split = 'train' WHERE id = ?", (prompt.id,))
    conversations.add(database, "Kwa nini?", language="sw", split=Split.HELD_OUT)
    trainer("reward", *METHODS["reward"])
    code, found = trainer("rloo", *METHODS["rloo"])
    assert (code, found["state"]) == (0, "done")
    assert found["result"]["held_out_prompts"] == 1
    assert jobs.get(database, found["job"]).result["state"] == "rejected"


# What comes back in another form


VARIANTS = {
    "case": str.upper,
    "white space": lambda text: "\t" + text.replace(" ", "  \n ") + " ",
    "taken apart": lambda text: unicodedata.normalize("NFD", text),
    "wide letters": lambda text: "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text),
    "unseen signs": lambda text: "\u200f" + "\u00ad".join(text) + "\ufeff",
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("split", [Split.HELD_OUT, Split.ETHICS])
def test_a_prompt_that_is_kept_apart_is_not_learned_from_in_any_form(database, variant, split):
    for place, (language, text) in enumerate(zip(LANGUAGES, CORPUS, strict=True)):
        conversations.add(database, text, language=language, split=split)
        own = conversations.add(database, f"{text} {place}", language=language, split=Split.TRAIN)
        again = VARIANTS[variant](text)
        conversations.add(database, again, language=language, split=Split.TRAIN)
        turns = [Message("user", f"{place}?"), Message("assistant", "?")]
        conversations.add(database, again, language=language, split=Split.TRAIN, earlier=turns)
        conversations.add(database, f"Jibu:\n{again.strip()}", language=language, split=Split.TRAIN)
        kept, left_out = leaks.learnable(database, None)
        there = conversations.by_split(database, Split.TRAIN)
        assert own.id in {prompt.id for prompt in kept}
        assert left_out == len(there) - len(kept)
        assert len(kept) == place + 1 + sum("\n" in prompt.text and variant == "white space" for prompt in kept)


def test_training_refuses_what_leaked_through_a_file_in_turns_and_in_other_forms(
    trainer, database, workspace, given, tmp_path, capsys, monkeypatch
):
    """Through the commands: a file with held-out prompts, and another in which they come back to teach."""
    type_and_rate(database, 0, 12)
    apart = ["Why does the café bread rise in the oven?", "Kwa nini mkate huumuka jikoni?"]
    leaked = [
        [{"role": "user", "content": f"Habari {place}"}, {"role": "assistant", "content": "Nzuri."}] * (place % 2)
        + [{"role": "user", "content": change(text)}]
        for place, text in enumerate(apart)
        for change in VARIANTS.values()
    ]
    first = [{"prompt": text, "split": "held-out"} for text in apart]
    then = [
        record
        for place, said in enumerate(leaked)
        for record in (
            {"prompt": said, "split": "train", "response": f"Chachu {place}.", "score": 1 + place % 5, "rater": "leak"},
            {"prompt": said, "split": "train", "completion": f"Chachu hutoa gesi {place}."},
        )
    ]
    for name, records in (("first", first), ("then", then)):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        assert run_command(workbench, ["import", str(file), "--workspace", str(workspace.root)]) == 0
    capsys.readouterr()
    asked_again = {said[-1]["content"] for said in leaked}
    there = [prompt for prompt in conversations.by_split(database, Split.TRAIN) if prompt.text in asked_again]
    assert len(there) == 9, "the file's own word on the split holds, but for what is the same text"
    assert {len(prompt.earlier) for prompt in there} == {0, 2}
    told: list[str] = []
    monkeypatch.setattr(HeldJob, "say", lambda held, text, **more: told.append(text))
    for method in ("reward", "sft"):
        told.clear()
        given.clear()
        code, found = trainer(method, *METHODS[method])
        assert (code, found["state"]) == (0, "done"), found["error"]
        asked = set().union(*given.values())
        assert asked
        assert not asked & asked_again
        assert "9 training prompts ask what held-out or ethics prompts ask: nothing learns from that" in told
    assert not learned_from(database) & asked_again
