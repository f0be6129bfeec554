"""A clock that was set back is told from the clocks of other machines, however often workspaces were merged."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import conversations, samples
from storage.database import open_database
from storage.feedback import clocks, log
from storage.merging import merge
from storage.workspace import Workspace

STEPS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=14)
"""Which workspace takes in which other; one that is named twice is rated in."""


@pytest.fixture(scope="module")
def new_workspace() -> Iterator[Path]:
    """A workspace with an answer, to be copied: to make one takes longer."""
    with tempfile.TemporaryDirectory() as folder:
        with open_database(Workspace(Path(folder) / "new").prepare()) as database:
            prompt = conversations.add(database, "Mto ni nini?", language="sw")
            samples.add(database, [samples.new(prompt.id, "Maji.")])
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield Path(folder) / "new"


@given(steps=STEPS, hours=st.permutations([0, 5, 17]))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_three_machines_whose_clocks_differ_set_none_back(
    new_workspace: Path, steps: list[tuple[int, int]], hours: list[int]
) -> None:
    """Each machine's own time runs on; what comes from another is earlier or later, as its clock is."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        places = [Workspace(Path(folder) / str(n)) for n in range(3)]
        for place in places:
            shutil.copytree(new_workspace, place.root)
        databases = [stack.enter_context(open_database(place)) for place in places]
        sample = databases[0].scalar("SELECT id FROM samples")
        for n, (one, other) in enumerate(steps):
            if one == other:
                moment = f"2026-03-01T{hours[one]:02d}:{n:02d}:00"
                log.append(databases[one], log.note(sample, "hm", str(one), created_at=moment))
            else:
                merge(databases[one], places[one], places[other])
        assert [clocks.set_back(database) for database in databases] == [0, 0, 0]


def test_a_step_back_stays_told_after_a_merge_that_makes_none(new_workspace: Path, tmp_path: Path) -> None:
    here, there = Workspace(tmp_path / "here"), Workspace(tmp_path / "there")
    shutil.copytree(new_workspace, here.root)
    shutil.copytree(new_workspace, there.root)
    with open_database(here) as database, open_database(there) as other:
        sample = database.scalar("SELECT id FROM samples")
        for one, days in ((database, (20, 21)), (other, (3, 5, 4))):
            for day in days:
                log.append(one, log.note(sample, "hm", "ana", created_at=f"2026-03-{day:02d}"))
        assert (clocks.set_back(database), clocks.set_back(other)) == (0, 1)
        merge(database, here, there)
        assert clocks.set_back(database) == 1, "that of there; where the logs meet nothing was set back"
        log.append(database, log.note(sample, "hm", "ana", created_at="2026-03-22"))
        log.append(database, log.note(sample, "hm", "ana", created_at="2026-03-21"))
        assert clocks.set_back(database) == 2
