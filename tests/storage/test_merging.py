"""Two workspaces become one: nothing is lost or changed, to the character, nothing comes twice, all or nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import conversations, evaluations, jobs, metrics, raters, reward_models, samples, versions
from storage.database import Database, open_database
from storage.digests import sha256_of
from storage.errors import UsageError, WorkbenchError
from storage.feedback import guidelines, log
from storage.feedback.guidelines import Attribute, Guideline
from storage.merging import Merged, merge
from storage.records import Choice, Evaluation, JobState, Split
from storage.workspace import Workspace

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: text.strip())
ASKED = st.one_of(
    TEXTS, st.sampled_from(["Barafu?", "Cafe\u0301?", "Caf\u00e9?"])
)  # so that both ask the same at times
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), ASKED, st.sampled_from(["en", "sw"]), st.sampled_from([None, *Split])),
        st.tuples(st.just("answer"), st.integers(0, 9), TEXTS),
        st.tuples(st.just("rate"), st.integers(0, 9), st.sampled_from(["score", "label", "pair", "edit"]), TEXTS),
        st.tuples(st.sampled_from(["undo", "redo"])),
    ),
    max_size=12,
)
EVERYTHING = ("prompts", "samples", "ratings", "counted", "versions", "jobs", "metrics", "reward_models", "raters",
              "version_events", "tally_of_ratings", "answers", "topics")  # fmt: skip


def do(database: Database, actions: list[tuple[Any, ...]], rater: str) -> None:
    """What one person does in one workspace."""
    for kind, *what in actions:
        asked = [row["id"] for row in database.rows("SELECT id FROM prompts ORDER BY sequence")]
        said = [row["id"] for row in database.rows("SELECT id FROM samples ORDER BY sequence")]
        match kind:
            case "ask":
                conversations.add(database, what[0], language=what[1], split=what[2])
            case "answer" if asked:
                samples.add(database, [samples.new(asked[what[0] % len(asked)], what[1], version="v0")])
            case "rate" if said:
                one, other = said[what[0] % len(said)], said[(what[0] + 1) % len(said)]
                match what[1]:
                    case "score":
                        log.append(database, log.score(one, 1 + what[0] % 5, rater))
                    case "label":
                        log.append(database, log.label(one, what[0] % 2 == 0, rater))
                    case "edit":
                        log.append(database, log.edit(one, what[2], rater))
                    case "pair" if one != other:
                        log.append(database, log.pair(one, other, Choice.A, rater))
            case "undo":
                log.undo(database, rater)
            case "redo":
                log.redo(database, rater)


def dump(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {table: database.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in EVERYTHING}


@pytest.fixture(scope="module")
def new_workspace() -> Iterator[Path]:
    """A workspace with a base version, to be copied: to make one takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        with open_database(Workspace(Path(folder) / "new").prepare()) as database:
            versions.ensure_base(database, "smollm2", "d" * 64)
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield Path(folder) / "new"


@given(before=ACTIONS, here=ACTIONS, there=ACTIONS, strangers=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_two_made_of_one_is_joined_without_a_loss(
    new_workspace: Path, before: list[tuple], here: list[tuple], there: list[tuple], strangers: bool
) -> None:
    """Of workspaces that were one before, and of such that never met; of two raters, or of one at two places."""
    for ours, theirs in (("ana", "bela"), ("ana", "ana")):
        with tempfile.TemporaryDirectory() as folder:
            places = [Workspace(Path(folder) / name) for name in ("here", "there")]
            shutil.copytree(new_workspace, places[0].root)
            if not strangers:
                with open_database(places[0]) as database:
                    do(database, before, "ana")
            shutil.copytree(places[0].root, places[1].root)
            with open_database(places[0]) as database, open_database(places[1]) as other:
                do(database, here, ours)
                do(other, there, theirs)
                check(database, other, places, ours, theirs)


def check(database: Database, other: Database, places: list[Workspace], ours: str, theirs: str) -> None:
    own, told = dump(database), dump(other)
    counted = [{one.id for one in log.effective(one_of)} for one_of in (database, other)]
    merge(database, places[0], places[1])
    found = dump(database)
    by_id = {table: {row["id"]: row for row in found[table]} for table in ("prompts", "samples", "ratings")}
    for row in told["samples"]:
        assert by_id["samples"][row["id"]]["text"] == row["text"]
    for row in [*own["ratings"], *told["ratings"]]:
        kept = by_id["ratings"][row["id"]]
        assert {**row, "sequence": 0, "supersedes": kept["supersedes"]} == {**kept, "sequence": 0}
        assert row["supersedes"] in (None, kept["supersedes"])
    known = {row["id"] for row in own["ratings"]}
    came = [by_id["ratings"][row["id"]]["sequence"] for row in told["ratings"] if row["id"] not in known]
    assert came == sorted(came), "in the order that they had"
    assert all(one > max((row["sequence"] for row in own["ratings"]), default=0) for one in came)
    texts = {(row["text_key"], row["system"], row["language"]): row for row in found["prompts"]}
    for row in [*own["prompts"], *told["prompts"]]:
        same = texts[row["text_key"], row["system"], row["language"]]
        strictness = list(Split).index
        assert strictness(Split(same["split"])) >= strictness(Split(row["split"]))
        assert same["text"] == row["text"] or row["id"] != same["id"]
    assert len(texts) == len(found["prompts"])
    for opening in {row["opening"] for row in found["prompts"]}:
        assert len({row["split"] for row in found["prompts"] if row["opening"] == opening}) == 1
    assert log.effects_differ(database) == 0
    now = {one.id for one in log.effective(database)}
    if ours != theirs:
        assert {one for one in now if by_id["ratings"][one]["rater"] == theirs} == {
            one.id for one in log.effective(other) if one.rater == theirs
        }
    assert now <= counted[0] | counted[1] | known
    assert merge(database, places[0], places[1]) == Merged(), "nothing comes twice"
    assert dump(database) == found
    assert dump(other) == told, "the other one stays as it is"


def two(tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Two workspaces of one base model; there one version was trained, by a job, with a reward model."""
    places = Workspace(tmp_path / "here").prepare(), Workspace(tmp_path / "there").prepare()
    for place in places:
        with open_database(place) as database:
            base = versions.ensure_base(database, "smollm2", "d" * 64)
            job = jobs.enqueue(database, "ppo", {"seed": 1})
            for folder, name in (("versions/v1", "adapter_model.safetensors"), (f"jobs/{job.id}/reward", "r"),
                                 (f"jobs/{job.id}/judge", "j")):  # fmt: skip
                (place.root / folder).mkdir(parents=True)
                (place.root / folder / name).write_text(f"{place.name} {name}")
            weights, reward = (
                place.root / "versions/v1/adapter_model.safetensors",
                place.root / f"jobs/{job.id}/reward/r",
            )
            versions.add_candidate(
                database, base=base, parent="v0", file=str(weights.relative_to(place.root)), sha256=sha256_of(weights),
                job_id=job.id,
            )  # fmt: skip
            reward_models.add(
                database, base=base, file=str(reward.relative_to(place.root)), sha256=sha256_of(reward),
                data_digest="", job_id=job.id, metrics={},
            )  # fmt: skip
            metrics.record(database, job.id, 1, {("objective/kl", None): 2.0})
            database.execute("UPDATE jobs SET state = 'done', checkpoint = 'c', log = 'l'")
            jobs.enqueue(database, "ppo", {"seed": 2})
            prompt = conversations.add(database, "Barafu?", language="sw", split=Split.TRAIN)
            samples.add(database, [samples.new(prompt.id, place.name, version="v1")])
    return places


def test_versions_come_with_their_files_under_the_next_name(tmp_path: Path) -> None:
    here, there = two(tmp_path)
    with open_database(there) as other:
        raters.put(other, "amina", languages=["sw"])
    with open_database(here) as database:
        doing: list[str] = []
        found = merge(database, here, there, progress=doing.append)
        assert doing == ["merging jobs and versions", "merging prompts and answers", "merging ratings"]
        assert found.renamed == {"v1": "v2", "rm1": "rm2"}
        assert (found.versions, found.jobs, found.reward_models, found.raters) == (1, 1, 1, 1)
        v2 = versions.get(database, "v2")
        versions.verify(here, v2)
        assert (here.root / (v2.file or "")).read_text() == "there adapter_model.safetensors"
        assert {one.text: one.version for one in samples.recent(database)} == {"here": "v1", "there": "v2"}
        rewards = reward_models.find(database, "d" * 64, "rm2")
        assert rewards is not None
        assert (here.root / rewards.file).is_file()
        assert ((here.root / rewards.file).parent.parent / "judge" / "j").is_file()
        (job,) = [one for one in jobs.every(database) if one.id == v2.job_id]
        assert (job.state, job.checkpoint, job.log) == (JobState.DONE, None, None)
        assert metrics.latest(database, job.id)["objective/kl", None].value == 2.0
        served = versions.served(database)
        assert served is not None
        assert served.name == "v0"
        assert merge(database, here, there).versions == 0
        assert len(versions.every(database)) == 3


def test_what_was_measured_goes_with_the_versions_that_it_is_of(tmp_path: Path) -> None:
    here, there = two(tmp_path)
    with open_database(there) as other:
        plain = Evaluation("one", "v1", "norms", "accuracy", 0.5, 12, "", "sw", 0.2, 0.8)
        gained = Evaluation("two", "v0", "norms", "accuracy/gain", -0.1, 12, "", against="v1")
        evaluations.add(other, [plain, gained])
    with open_database(here) as database:
        merge(database, here, there)
        assert evaluations.of(database, "v2") == [msgspec.structs.replace(plain, version="v2")]
        assert evaluations.of(database, "v0") == [msgspec.structs.replace(gained, against="v2")]
        merge(database, here, there)
        assert len(evaluations.of(database, "v2")) == 1


def test_a_file_that_is_not_what_was_recorded_refuses_the_whole(tmp_path: Path) -> None:
    here, there = two(tmp_path)
    weights = there.root / "versions/v1/adapter_model.safetensors"
    with open_database(here) as database:
        before = dump(database), sorted(path.name for path in here.root.rglob("*") if "workbench.db" not in path.name)
        for spoil in (lambda: weights.write_text("changed"), weights.unlink):
            spoil()
            with pytest.raises(WorkbenchError, match=r"v1: .*(digest differs|is missing)"):
                merge(database, here, there)
            left = sorted(path.name for path in here.root.rglob("*") if "workbench.db" not in path.name)
            assert (dump(database), [name for name in left if name != "import.lock"]) == before


def test_what_fails_at_the_end_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage.feedback import projection

    here, there = two(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(projection, "settle", fail)
    with open_database(here) as database:
        before = dump(database)
        with pytest.raises(OSError, match="no space"):
            merge(database, here, there)
        assert dump(database) == before
    assert [path.name for path in here.versions.iterdir()] == ["v1"]


def test_a_workspace_is_not_merged_into_itself_nor_while_a_job_runs_there(tmp_path: Path) -> None:
    here, there = two(tmp_path)
    with open_database(here) as database, open_database(there) as other:
        with pytest.raises(UsageError, match="into itself"):
            merge(database, here, here)
        with pytest.raises(UsageError, match="there is no workspace"):
            merge(database, here, Workspace(tmp_path / "nowhere"))
        assert jobs.claim(other, "worker") is not None
        with pytest.raises(UsageError, match="is running in"):
            merge(database, here, there)


def test_a_prompt_that_both_asked_is_one_and_its_stricter_use_holds_for_all_that_open_alike(tmp_path: Path) -> None:
    here, there = (Workspace(tmp_path / name).prepare() for name in ("here", "there"))
    with open_database(here) as database, open_database(there) as other:
        ours = conversations.add(database, "Caf\u00e9?", language="fr", split=Split.TRAIN)
        beside = conversations.add(database, "Caf\u00e9?", language="en", split=Split.TRAIN)
        theirs = conversations.add(other, "Cafe\u0301?", language="fr", split=Split.HELD_OUT, task="drinks")
        strict = conversations.add(database, "Poison?", language="en", split=Split.ETHICS)
        loose = conversations.add(other, "Poison?", language="sw", split=Split.TRAIN)
        samples.add(other, [samples.new(theirs.id, "Noir", origin="imported")])
        found = merge(database, here, there)
        assert (found.prompts, found.stricter) == (1, 2)
        for prompt, split in ((ours, Split.HELD_OUT), (beside, Split.HELD_OUT), (strict, Split.ETHICS),
                              (loose, Split.ETHICS)):  # fmt: skip
            assert conversations.get(database, prompt.id).split == split
        (sample,) = samples.of_prompt(database, ours.id)
        assert sample.text == "Noir"
        assert conversations.get(database, ours.id).task == "drinks"
        assert conversations.get(database, ours.id).text == "Caf\u00e9?", "what was typed here stays as it was typed"


def test_ratings_answer_to_the_same_guideline_by_its_name_here(tmp_path: Path) -> None:
    here, there = two(tmp_path)
    style, tone = (Guideline(attributes=(Attribute(name), Attribute())) for name in ("style", "tone"))
    with open_database(here) as database, open_database(there) as other:
        assert guidelines.version_of(database, style) == "g1"
        assert [guidelines.version_of(other, one) for one in (tone, style)] == ["g1", "g2"]
        (sample,) = samples.recent(other)
        for name in ("g1", "g2"):
            log.append(other, log.label(sample.id, True, name, guideline=name))
        merge(database, here, there)
        assert {one.rater: one.guideline for one in log.effective(database)} == {"g1": "g2", "g2": "g1"}
        assert [one.guideline for one in guidelines.versions(database)] == [style, tone]


def test_one_rater_at_two_places_has_said_last_what_was_said_there(tmp_path: Path) -> None:
    here, there = (Workspace(tmp_path / name) for name in ("here", "there"))
    with open_database(here.prepare()) as database:
        prompt = conversations.add(database, "Barafu?", language="sw")
        sample = samples.new(prompt.id, "maji", origin="imported")
        samples.add(database, [sample])
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(here.root, there.root)
    with open_database(here) as database, open_database(there) as other:
        log.append(database, log.score(sample.id, 1, "ana"))
        log.append(other, log.score(sample.id, 5, "ana"))
        merge(database, here, there)
        assert [one.value for one in log.effective(database)] == [5]
        log.undo(database, "ana")
        assert [one.value for one in log.effective(database)] == [1]


def test_what_was_corrected_of_a_prompt_there_is_told_here_once(tmp_path: Path) -> None:
    here, there = (Workspace(tmp_path / name).prepare() for name in ("here", "there"))
    with open_database(there) as other:
        prompt = conversations.add(other, "Barafu ni nini?", language="en")
        conversations.put_to_use(other, prompt.id, prompt.split, "physics", language="sw", by="ana")
        said = [(one.field, one.was, one.became, one.made_by) for one in conversations.changes(other, prompt.id)]
    with open_database(here) as database:
        for _ in range(2):
            merge(database, here, there)
            assert conversations.get(database, prompt.id).language == "sw"
            found = [
                (one.field, one.was, one.became, one.made_by) for one in conversations.changes(database, prompt.id)
            ]
            assert found == said
            assert {("language", "en", "sw", "ana")} <= set(found)
