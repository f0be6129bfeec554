"""What a run leaves to be rated next: answers of its candidate, which the review queue leads with."""

from __future__ import annotations

import pytest
from rated_workspace import fill

from storage import versions
from storage.database import Database
from storage.feedback import queue
from storage.records import Split

RUN = (
    "run", "--steps", "2", "--batch", "8", "--answers", "2", "--minibatch", "4", "--max-new-tokens", "6", "--rank", "4",
    "--gate-prompts", "4", "--gate-min-gain=-100", "--gate-max-kl", "1000", "--reward-minimum", "10",
)  # fmt: skip


@pytest.fixture
def rated(database: Database) -> Database:
    fill(database, 48)
    return database


def left(database: Database, version: str) -> list[dict]:
    return database.rows(
        """SELECT samples.*, split, reward, deviation FROM samples JOIN prompts ON prompts.id = prompt_id
           LEFT JOIN expectations ON sample_id = samples.id WHERE version = ? ORDER BY seed""",
        (version,),
    )


def test_answers_to_training_prompts_wait_with_what_is_expected_of_them_and_come_first(trainer, rated):
    code, result = trainer(*RUN, "--ask", "16")
    assert (code, result["version"]) == (0, "v1"), result
    found = left(rated, "v1")
    assert len(found) == 16
    assert {row["split"] for row in found} == {Split.TRAIN}
    assert len({row["group_id"] for row in found}) == 4
    assert sorted(row["position"] for row in found) == sorted([*range(4)] * 4)
    assert all(row["deviation"] > 0 for row in found)
    assert len({row["reward"] for row in found}) > 1
    first = [
        item
        for item in queue.next_items(rated, "somebody new", 200)
        if item.kind == "single" and item.slice == "acquisition"
    ]
    leading = {}  # the first of each language
    for item in first:
        leading.setdefault(item.prompt.language, item.samples[0].version)
    languages = {row["language"] for row in rated.rows("SELECT language FROM prompts JOIN samples ON prompt_id = "
                                                       "prompts.id WHERE version = 'v1'")}  # fmt: skip
    assert {leading[language] for language in languages} == {"v1"}


@pytest.mark.parametrize("more", [("--ask", "0"), ("--control", "shuffled")], ids=["none", "a control"])
def test_nothing_is_left_where_nothing_is_asked_for_and_by_a_control(more, trainer, rated):
    code, result = trainer(*RUN, *more)
    assert (code, result["version"]) == (0, "v1"), result
    assert left(rated, "v1") == []
    assert versions.get(rated, "v1").state != "published" or "--ask" in more


def test_a_run_that_is_done_again_leaves_the_same_answers(trainer, rated):
    texts = []
    for name in ("v1", "v2"):
        trainer(*RUN, "--ask", "8", "--no-publish")
        texts.append([(row["prompt_id"], row["text"], row["seed"]) for row in left(rated, name)])
    assert texts[0] == texts[1] != []


def test_pairs_are_put_in_order_for_review_after_a_fit_and_after_a_run(trainer, rated):
    code, _ = trainer("reward", "--minimum", "10")
    assert code == 0
    assert rated.rows("SELECT * FROM telling_pairs") == [], (
        "what was rated came from a file: nobody is asked about that"
    )
    code, result = trainer(*RUN, "--ask", "16")
    assert (code, result["version"]) == (0, "v1"), result
    found = rated.rows("SELECT * FROM telling_pairs ORDER BY place")
    samples = {row["sequence"]: row for row in rated.rows("SELECT samples.*, language FROM samples JOIN prompts ON "
                                                          "prompts.id = prompt_id")}  # fmt: skip
    assert len(found) > 8
    assert [row["place"] for row in found] == list(range(len(found)))
    for row in found:
        one, other = samples[row["sample"]], samples[row["other"]]
        assert (one["prompt_id"], one["version"], one["language"]) == (other["prompt_id"], "v1", row["language"])
        assert one["text"] != other["text"]
        assert row["nats"] > 0
    asked = [item for item in queue.next_items(rated, "somebody new", 60) if item.slice == "acquisition"]
    first = next(item for item in asked if item.kind == "pair")
    leading = min((row for row in found if row["language"] == first.prompt.language), key=lambda row: row["place"])
    assert [one.id for one in first.samples] == [samples[leading[name]]["id"] for name in ("sample", "other")]
