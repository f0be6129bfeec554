"""A person at an app of the chaos run: rates on Review by keys without a pause, and now and then asks something.

Every rating that the screen called saved is written down at once, outside the workspace. An app that is gone is started
again; one that went without being killed is told.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.chaos_faults import Faults
from storage.workspace import Workspace
from tests.terminal import CTRL_Q, CTRL_U, ENTER, F1, F2, F8, Ended, Terminal

QUESTIONS = ("Why is the sea salty?", "¿Por qué es salado el mar?", "Pourquoi la mer est-elle salée ?",
             "海水为什么是咸的？", "Kwa nini bahari ina chumvi?")  # fmt: skip
ITEM = re.compile(r"Q(\d{6})")  # prompts to review have numbers, those of the trainer have none
AGAIN = 5.0  # seconds without an answer after which another rating is tried: the one before may have been refused
PLACE = re.compile(r"(\d+) of \d+\+? · ")
ANY = "any"
TRIES = 5
FRAME = 0.1  # seconds in which the rest of a frame comes
SINGLE = {**{str(n): ("score", str(n), f"{n} of 5") for n in range(1, 6)},
          "g": ("label", "1", "good"), "x": ("label", "0", "bad")}  # fmt: skip
PAIR = {"a": ("pair", "left", "left is better"), "b": ("pair", "right", "right is better"),
        "=": ("pair", "tie", "tie"), "x": ("pair", "both-bad", "both bad")}  # fmt: skip
Tell = Callable[[str, str], None]  # what kind of finding, and its details


class Rated(NamedTuple):
    """One rating as the screen acknowledged it, or as the database holds it: the number of the prompt (`ANY` where the
    screen did not tell), the kind, and the score, 1 or 0 for good or bad, or the side preferred. An undo names what it
    took back."""

    item: str
    kind: str
    value: str


class Person(threading.Thread):
    """One app under a pseudo-terminal, with somebody at its keys until `leave`."""

    def __init__(
        self, name: str, workspace: Workspace, faults: Faults, ledger: Path, tell: Tell, patience: float,
        *, with_engine: bool,
    ) -> None:  # fmt: skip
        super().__init__(name=name, daemon=True)
        self.workspace = workspace
        self.with_engine = with_engine
        self.random = random.Random(name)
        self.tell = tell
        self.patience = patience
        self.starts = 0  # how often an app of mine has painted its first frame
        self.saved = 0
        self.deaths = 0
        self.exit_code: int | None = None
        self._faults = faults
        self._ledger = ledger
        self._killed = self._stopped = False
        self._leaving = threading.Event()
        self._asked = ""
        self._pending: dict[str, Rated] = {}  # by the words that would acknowledge it
        self.terminal = self._new_terminal()

    # What the harness asks

    @property
    def pid(self) -> int:
        return self.terminal.pid

    @property
    def screen(self) -> str:
        return self.terminal.text

    def kill(self) -> None:
        """SIGKILL the app; it is started again at once."""
        self._killed = True
        os.kill(self.pid, signal.SIGKILL)

    def engine_pid(self) -> int | None:
        """The app's engine, if it has one now."""
        try:
            children = psutil.Process(self.pid).children()
            return next((one.pid for one in children if "workbench.engine.server" in one.cmdline()), None)
        except psutil.Error:
            return None

    def ask(self, prompt: str) -> None:
        """Have a prompt typed next."""
        self._asked = prompt

    def leave(self) -> None:
        """End the app by its key, and wait for that."""
        self._leaving.set()
        self.join()

    def stop(self) -> None:
        """End the app at once, and with it the person."""
        self._stopped = True
        self.terminal.close()

    # The person

    def run(self) -> None:
        while True:
            try:
                self._until(lambda text: "6 Versions" in text)
                self.starts += 1
                while not self._leaving.is_set():
                    self._ask() if self._asked else self._review()
                self._quit()
                return
            except Ended:
                if self._stopped:
                    return
                self._look_for_traceback()
                self.terminal.close()
                if not self._killed:
                    self.deaths += 1
                    self.tell("dead app", f"{self.name} ended by itself:\n{self._last_words()}")
            except AssertionError as error:  # it shows nothing any more
                self.tell("hung app", f"{self.name}: {error}")
                self.terminal.close()
            self._killed, self._pending = False, {}
            self.terminal = self._new_terminal()

    def _new_terminal(self) -> Terminal:
        environment = self._faults.environment(self.name)
        folder = str(self.workspace.root)
        arguments = ("workbench", "--workspace", folder) if self.with_engine else ("benchmarks.engineless", folder)
        return Terminal(*arguments, environment=environment)

    def _review(self) -> None:
        """Judge the item on screen, and wait until the screen says that it is saved."""
        text = self.screen
        found = ITEM.search(text)
        if "why:" not in text:
            self.terminal.press(F2)
            self.terminal.read(0.5)
            return
        if self.with_engine and "engine down" in text.partition("\n")[0]:
            self.terminal.press(F8)
            self.terminal.read(1.0)
        choices = {
            key: Rated(found[1] if found else "", kind, value)
            for key, (kind, value, words) in (PAIR if "blind" in text else SINGLE).items()
            if words not in self._pending and not self._shows_saved(words)
        }
        words_of = {key: words for key, (_, _, words) in (PAIR if "blind" in text else SINGLE).items()}
        if self.random.random() < 0.1 and not self._pending and (kind := self._last_kind(text)):
            choices, words_of = {"u": Rated("", "undo", kind)}, {"u": f"{kind} taken back"}
        if not choices:  # all have been tried
            self._until(lambda _: self._acknowledged())
            return
        key = self.random.choice(list(choices))
        self._pending[words_of[key]] = choices[key]
        self.terminal.press(key)
        deadline = time.monotonic() + AGAIN
        while not (acknowledged := self._acknowledged()) and time.monotonic() < deadline:
            self.terminal.read()
        if acknowledged:  # a key that comes before the next item is painted would judge what nobody has seen
            self._until(lambda now: key == "u" or _place(now) != _place(text))
            self.terminal.read(FRAME)
        if self.with_engine and self.random.random() < 0.05:
            self.ask(f"{self.random.choice(QUESTIONS)} {self.random.randrange(10**6)}")

    def _acknowledged(self) -> bool:
        """Whether the screen now calls something saved that was pending; it is written down."""
        for words, rated in self._pending.items():
            if self._shows_saved(words):
                if len(self._pending) > 1:  # keys that waited may have judged the items after the one on screen
                    rated = rated._replace(item=ANY)
                with self._ledger.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rated) + "\n")
                self.saved += 1
                self._pending = {}
                return True
        return False

    def _shows_saved(self, words: str) -> bool:
        return re.search(rf"saved ✓  {re.escape(words)}( |$)", self.screen, re.MULTILINE) is not None

    def _last_kind(self, text: str) -> str:
        """The kind of what was saved last by this app, as far as the screen tells."""
        for kind, _, words in (*SINGLE.values(), *PAIR.values()):
            if f"saved ✓  {words} " in text:
                return kind
        return ""

    def _ask(self) -> None:
        """Type a prompt and send it; its answers are awaited by nobody."""
        prompt, self._asked = self._asked, ""
        self.terminal.press(F1)
        self._until(lambda text: "why:" not in text)
        for _ in range(TRIES):  # keys that come before the field has the focus are lost
            self.terminal.press(CTRL_U)
            self.terminal.read(0.3)
            self.terminal.press(prompt)
            try:
                self.terminal.until(lambda text: prompt[-6:] in text, AGAIN)
                break
            except AssertionError:
                continue
        self.terminal.press(ENTER)
        self._until(lambda text: "Write a prompt" in text)

    def _quit(self) -> None:
        self.terminal.press(CTRL_Q)
        try:
            self._until(lambda _: False)
        except Ended:
            pass
        self._look_for_traceback()
        self.terminal.close()
        self.exit_code = self.terminal.child.exitstatus

    def _until(self, condition: Callable[[str], object]) -> None:
        self.terminal.until(condition, self.patience)

    def _look_for_traceback(self) -> None:
        if b"Traceback" in self.terminal.written:
            self.tell("traceback", f"{self.name}:\n{self._last_words()}")

    def _last_words(self) -> str:
        """The end of what the app wrote, without colours."""
        plain = re.sub(rb"\x1b(\[[0-9;?<>=]*[a-zA-Z]|\][^\x07]*\x07|.)", b"", self.terminal.written[-40_000:])
        text = plain.decode(errors="replace")
        return text[max(0, text.find("Traceback")) :][-5000:]


def _place(text: str) -> str:
    """The place of the item on screen."""
    found = PLACE.search(text)
    return found[1] if found else ""
