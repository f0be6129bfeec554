"""The app of the crash benchmark, driven by keys; it keeps a list of every rating that the screen called saved."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from storage.database import open_database
from storage.records import Sampling
from storage.workspace import Workspace
from tests.terminal import CTRL_Q, CTRL_U, ENTER, ESCAPE, RIGHT, Ended, Terminal
from workbench.shell import session

PROMPTS = (
    "Why is the sea salty?", "¿Por qué es salado el mar?", "Pourquoi la mer est-elle salée ?",
    "Warum ist das Meer salzig?", "Por que o mar é salgado?", "海水为什么是咸的？", "Kwa nini bahari ina chumvi?",
)  # fmt: skip
PATIENCE = 180.0  # a machine with other work starts an engine slowly
ANSWERED = re.compile(r"tokens · \S+ · v\d+")


class Rated(NamedTuple):
    """One rating as the screen acknowledged it, or as the database holds it. `value` is a score, 1 or 0 for good or
    bad, the letter preferred, `tie`, or what an undo took back."""

    prompt: str
    kind: str
    value: str


class App:
    """`workbench` under a pseudo-terminal, asked and rated without a pause."""

    def __init__(self, workspace: Workspace, model: Path, chance: random.Random) -> None:
        self.workspace = workspace
        self.random = chance
        self.terminal: Terminal = None  # type: ignore[assignment]  # until `start`
        self.asked = 0
        self.writing = True  # whether the focus is in the prompt's field
        self._typing = False
        self._acknowledged: list[Rated] = []
        self._activity: Iterator[None] = iter(())
        with open_database(workspace) as database:
            chosen = session.Session(model=str(model), sampling=Sampling(max_new_tokens=24), rater="rater")
            session.save(database, chosen)

    def start(self) -> None:
        self.terminal = Terminal(
            "workbench", "--workspace", str(self.workspace.root), environment={"OMP_NUM_THREADS": "1"}
        )
        self.writing, self._typing = True, False
        self._activity = self._ask_and_rate()

    @property
    def header(self) -> str:
        return self.terminal.text.partition("\n")[0]

    def engine_pid(self) -> int:
        """The engine's process. Raises AssertionError when there is none."""
        for child in psutil.Process(self.terminal.pid).children():
            if "workbench.engine.server" in child.cmdline():
                return child.pid
        raise AssertionError(f"the app has no engine:\n{self.terminal.text}")

    def kill_after(self, seconds: float, pid: int | None = None) -> None:
        """SIGKILL a process, the app itself if none is named, in some seconds from now."""
        timer = threading.Timer(seconds, os.kill, (pid or self.terminal.pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()

    def watch(self, seconds: float = 0.05) -> None:
        """Look at the screen for a while. Raises Ended when the app is gone."""
        self.terminal.read(seconds)

    def mourns(self) -> bool:
        """Whether the screen tells that the engine has died."""
        return self._shows("stopped unexpectedly")

    def until_painted(self) -> None:
        self._until(lambda: "6 Versions" in self.terminal.text)

    def until_ready(self) -> None:
        self._until(lambda: re.search("[●◉]", self.header))

    def until_answered(self, prompt: str) -> None:
        """Wait until the answers to a prompt are stored."""

        def stored() -> bool:
            with open_database(self.workspace) as database:
                found = database.scalar(
                    "SELECT count(*) FROM samples JOIN prompts ON prompts.id = prompt_id WHERE prompts.text = ?",
                    (prompt,),
                )
            return found == 2

        self._until(stored)

    def type_prompt(self) -> str:
        """Write a prompt and send it, whatever else was going on; returns it."""
        while self._typing:
            self.rate_something()
        self._activity = self._ask_and_rate()
        prompt = self._new_prompt()
        for _ in self._type(prompt):
            pass
        return prompt

    def rate_something(self) -> None:
        """One small step of asking and rating; never waits long."""
        try:
            next(self._activity)
        except AssertionError:  # what did not come about is told once; then something else is asked
            self._activity, self._typing = self._ask_and_rate(), False
            raise

    def take_acknowledged(self) -> list[Rated]:
        """What was acknowledged since the last time."""
        taken, self._acknowledged = self._acknowledged, []
        return taken

    def quit(self) -> int | None:
        """Leave by the key; returns the exit code."""
        self.terminal.press(CTRL_Q)
        try:
            self._until(lambda: False)
        except Ended:
            pass
        self.close()
        return self.terminal.child.exitstatus

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.close()

    def _new_prompt(self) -> str:
        self.asked += 1
        return f"{self.random.choice(PROMPTS)} {self.asked}"

    def _type(self, prompt: str) -> Iterator[None]:
        """Write a prompt into the empty field and send it; between keys of different meaning a person's pause."""
        self._typing = True
        if not self.writing:
            self.terminal.press("i")
            self.writing = True
            yield from self._pause(0.3)
        if not self._shows("Write a prompt"):  # a draft that was kept
            self.terminal.press(CTRL_U)
            yield from self._wait(partial(self._shows, "Write a prompt"))
        self.terminal.press(prompt)
        yield from self._wait(partial(self._shows, f"│ {prompt} "))
        self.terminal.press(ENTER)
        yield from self._wait(partial(self._shows, "Write a prompt"))
        self._typing = False

    def _ask_and_rate(self) -> Iterator[None]:
        """Type a prompt, wait for its answers, rate them by keys, and so on; yields between any two looks."""
        while True:
            prompt = self._new_prompt()
            yield from self._type(prompt)
            yield from self._wait(partial(self._shows_answers_to, prompt))
            yield from self._pause(0.2)
            self.terminal.press(ESCAPE)  # from the field to the answers
            self.writing = False
            yield from self._pause(0.4)
            last, said = None, ""
            for _ in range(self.random.randint(3, 7)):
                keys, rated, words = self._choose(prompt, last)
                if words == said:  # on screen it would look like the one before
                    continue
                for key in keys:
                    self.terminal.press(key)
                    yield from self._pause(0.05)
                yield from self._wait(partial(self._shows, f"saved ✓  {words}"))
                self._acknowledged.append(rated)
                last, said = rated, words

    def _choose(self, prompt: str, last: Rated | None) -> tuple[list[str], Rated, str]:
        """Keys to press, what they store, and the words that acknowledge it."""
        match self.random.choice(["score", "score", "label", "prefer", "tie", "undo"]):
            case "label":
                good = self.random.random() < 0.5
                return ["g" if good else "x"], Rated(prompt, "label", f"{good:d}"), "good" if good else "bad"
            case "prefer":
                letter = self.random.choice("ab")
                return [letter], Rated(prompt, "pair", letter), f"{letter} preferred"
            case "tie":
                return ["="], Rated(prompt, "pair", "tie"), "tie"
            case "undo" if last is not None and last.kind != "undo":
                return ["u"], Rated(prompt, "undo", f"{last.kind} {last.value}"), f"{last.kind} taken back"
        value = self.random.randint(1, 5)
        go = [RIGHT] if self.random.random() < 0.5 else []
        return [*go, str(value)], Rated(prompt, "score", str(value)), f"{value} of 5"

    def _shows(self, words: str) -> bool:
        return words in self.terminal.text

    def _shows_answers_to(self, prompt: str) -> bool:
        return "●" in self.header and self._shows(f"▸ {prompt} ") and ANSWERED.search(self.terminal.text) is not None

    def _wait(self, condition: Callable[[], object]) -> Iterator[None]:
        """Look until something holds. Raises AssertionError when it does not within three minutes."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain; on screen:\n{self.terminal.text}"
            self.watch()
            yield

    def _pause(self, seconds: float) -> Iterator[None]:
        self.watch(seconds)
        yield

    def _until(self, condition: Callable[[], object]) -> None:
        for _ in self._wait(condition):
            pass
