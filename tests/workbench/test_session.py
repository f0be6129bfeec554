"""What is remembered between sessions: whatever stands there, the app and the commands begin."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from driving import opened
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from storage import settings
from storage.database import Database, open_database
from storage.workspace import Workspace
from workbench.shell import session
from workbench.shell.app import WorkbenchApp
from workbench.shell.session import SETTINGS, Session

FIELDS = msgspec.to_builtins(Session())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
REMEMBERED = ANYTHING | st.fixed_dictionaries(
    {}, optional={name: ANYTHING | st.just(value) | st.integers(-1, 200) for name, value in FIELDS.items()}
)


@given(st.lists(REMEMBERED, min_size=20, max_size=20))
@hypothesis(max_examples=10)
def test_whatever_is_remembered_makes_a_session_that_can_be_set(several: list[object]) -> None:
    with TemporaryDirectory() as folder, open_database(Workspace(Path(folder))) as database:
        for remembered in several:
            settings.put(database, session.KEY, remembered)
            found = session.load(database)
            assert found.rater
            for setting in SETTINGS:
                if setting.path:
                    setting.parse(setting.shown(setting.of(found)))


async def test_a_screen_and_a_theme_that_are_not_there_any_more_are_passed_over(
    workspace: Workspace, database: Database
) -> None:
    settings.put(database, session.KEY, {"screen": "gone", "theme": "gone", "candidates": 9})
    app = WorkbenchApp(workspace, start_engine=False)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert (app.current_mode, app.session.candidates, app.theme) == ("prompt", Session().candidates, "workbench")
