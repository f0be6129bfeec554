"""Looking at the workspace again and again, beside the event loop, and passing on what has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from storage.errors import WorkbenchError
from workbench.shell.messages import News
from workbench.training.status import TrainerStatus

if TYPE_CHECKING:
    from workbench.desk import Desk
    from workbench.shell.news import Seen

CLOSELY = 4  # every so many looks, also ask whether the trainer lives


class Watch:
    """What was seen last. `tell` gets each piece of news, `report` what went wrong, once while it goes on."""

    def __init__(self, tell: Callable[[News], None], report: Callable[[BaseException], None]) -> None:
        self._tell = tell
        self._report = report
        self.seen: Seen | None = None
        self._looks = 0
        self._looking = False
        self._problem = ""

    @property
    def trainer(self) -> TrainerStatus:
        return self.seen.trainer if self.seen else TrainerStatus()

    @property
    def rated(self) -> int | None:
        """How many ratings count today, but for judge models'; None before they were counted."""
        return self.seen.rated if self.seen else None

    @property
    def judged(self) -> int:
        """How many ratings of judge models count today."""
        return self.seen.judged if self.seen else 0

    async def look(self, desk: Desk) -> bool:
        """Look once and pass on the news; returns whether anything has moved. Returns at once where a look goes on."""
        from workbench.shell.news import Seen, told

        if self._looking:
            return False
        self._looking = True
        before = self.seen or Seen()
        try:
            self.seen = await desk.look(before, closely=self._looks % CLOSELY == 0)
        except WorkbenchError as error:
            self.say_once(error)
            return False
        finally:
            self._looking = False
            self._looks += 1
        self._problem = ""
        if self.seen.problem is not None:
            self._report(self.seen.problem)
        news = told(before, self.seen)
        for one in news:
            self._tell(one)
        return bool(news) or (self.seen.rated, self.seen.judged) != (before.rated, before.judged)

    def say_once(self, error: WorkbenchError) -> None:
        """Report a problem that may come again and again, the first time only."""
        if error.message != self._problem:
            self._report(error)
        self._problem = error.message
