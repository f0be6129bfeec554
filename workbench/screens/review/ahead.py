"""Sampling ahead: while a person judges, the engine answers the prompts that come next, so that an item is ready before
it is asked for.

It begins only where Review is in front and few items wait; it asks the version that is loaded, one prompt at a time and
without streaming; and it gives way at once where the person leaves for another screen: what is under way is cancelled,
and answers that were cut short are not kept.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from storage import clock
from storage.errors import WorkbenchError
from storage.feedback import upcoming
from workbench.engine import protocol
from workbench.engine.machine import Restarting
from workbench.engine.process import EngineDied
from workbench.screens.prompt.conversation import Ask, Exchange
from workbench.shell.messages import AnswersChanged

if TYPE_CHECKING:
    from storage.records import Prompt, Sample
    from workbench.engine.machine import Report
    from workbench.engine.supervisor import Supervisor
    from workbench.shell.app import WorkbenchApp

ENOUGH = 20  # items that wait; where fewer do, the engine samples ahead


class Ahead:
    """What is being sampled ahead of the person, and why nothing is."""

    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self._heard: Supervisor | None = None
        self._exchange: Exchange | None = None
        self._looking = False
        self._in_vain: tuple[str, int] | None = None  # a version that had answered all prompts, and how many there were
        self.why = ""  # why nothing is sampled ahead

    def words(self, waiting: str, enough: bool) -> str:
        """How many items wait, and what is done about it where they are few."""
        if self._exchange is not None:
            return f"{waiting} wait, more on the way"
        return f"{waiting} wait" + (f": {self.why}" if self.why and not enough else "")

    async def look(self, waiting: int) -> None:
        """Sample ahead where that is wanted and the engine is free."""
        app, desk = self._app, self._app.desk
        if desk is None or self._looking or self._exchange is not None or waiting >= ENOUGH:
            return
        self.why = self._not_free()
        if self.why:
            return
        self._looking = True
        try:
            version, answers = app.engine.version, app.session.candidates
            prompts, known = await desk.read(upcoming.unanswered, desk.rater, version, self._in_vain)
        except WorkbenchError as error:
            self.why = error.message
            return
        finally:
            self._looking = False
        if not prompts:
            self._in_vain = (version, known)
            self.why = f"{version} has answered every prompt; ask more on Prompt, or import some"
        elif not self._not_free() and self._exchange is None and getattr(app.base_screen, "KEY", "") == "review":
            self._ask(prompts[0], answers)

    def _not_free(self) -> str:
        app = self._app
        if app.supervisor is None or not app.engine.is_ready:
            return f"the engine is {app.engine.state}"
        if app.conversation.is_writing or app.conversation.waiting:
            return "the engine answers what you asked on Prompt"
        if app.desk is not None and app.desk.read_only is not None:
            return "nothing can be stored here"
        return ""

    def _ask(self, prompt: Prompt, count: int) -> None:
        supervisor = self._app.supervisor
        assert supervisor is not None
        if self._heard is not supervisor:
            self._heard = supervisor
            supervisor.listen(self.hear)
        generate = protocol.Generate(
            clock.new_id(), prompt.text, prompt.system, count, secrets.randbelow(2**31), self._app.session.sampling,
            stream=False, earlier=prompt.earlier,
        )  # fmt: skip
        self._exchange = Exchange(Ask(prompt, generate))
        self._exchange.begin()
        supervisor.send(generate)

    def give_way(self) -> None:
        """The person may want the engine: what is under way for later ends here."""
        if self._exchange is not None and self._app.supervisor is not None:
            self._app.supervisor.send(protocol.Cancel(self._exchange.ask.generate.request))

    def hear(self, event: Report) -> None:
        """Take an event of the engine."""
        exchange = self._exchange
        if exchange is None:
            return
        if isinstance(event, EngineDied | Restarting):
            self._exchange = None
        elif getattr(event, "request", None) == exchange.ask.generate.request:
            exchange.hear(event)
            if exchange.state != "writing":
                self._keep(exchange)

    def _keep(self, exchange: Exchange) -> None:
        """Store the answers to a prompt, where all of them are whole."""
        desk, asked = self._app.desk, exchange.ask.generate
        whole = [answer for answer in exchange.answers.values() if answer.finish_reason != "cancelled"]
        if exchange.state == "failed":
            self.why = f"the engine could not answer: {exchange.error}"
        if desk is None or len(whole) < asked.count:
            self._exchange = None
            return

        def stored(_: list[Sample]) -> None:  # not before: the prompt would be asked again
            self._exchange = None
            self._app.tell(AnswersChanged())

        key = f"answers {asked.request}"
        self._app.saver.begin(
            key, "answers", lambda: desk.remember_answers(exchange), stored, self._app.looking.say_once, by_itself=True
        )
