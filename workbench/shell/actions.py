"""The one registry of what can be done: behind key bindings, footer, palette, help screen and `workbench keys`."""

from __future__ import annotations

from dataclasses import dataclass

SCREENS = {
    "app": "Everywhere",
    "prompt": "Prompt",
    "review": "Review",
    "train": "Train",
    "versions": "Versions",
    "dialog": "In a dialog",
}
"""Where actions live: identifier and title, in the order of the help."""

NUMBERS = {"prompt": 1, "review": 2, "train": 3, "versions": 6}
"""The number of each screen on the bar; 4 and 5 are kept for Insight and Library."""


@dataclass(frozen=True)
class Action:
    """Something a person can do. `keys` are Textual key names; the first is the one shown.

    `when` names the situation in which the keys mean this (two actions may share a key in different situations);
    `call` is the Textual action, by default the part of `id` after the dot.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    screen: str
    when: str = ""
    call: str = ""
    shown: bool = True  # in the footer
    priority: bool = False  # before the widget in focus sees the key

    @property
    def method(self) -> str:
        return self.call or self.id.split(".", 1)[1].replace("-", "_")


def _on(screen: str, name: str, keys: str, label: str, help: str, **more: object) -> Action:  # noqa: A002
    return Action(f"{screen}.{name}", tuple(keys.split()), label, help, screen, **more)  # type: ignore[arg-type]


def _scores(screen: str, when: str) -> tuple[Action, ...]:
    return tuple(
        _on(
            screen, f"score-{n}", str(n), "score", "Score the answer, 1 worst and 5 best", when=when, call=f"score({n})"
        )
        for n in range(1, 6)
    )


def _digits(screen: str) -> tuple[Action, ...]:
    """Plain digits change the screen where they score nothing."""
    return tuple(
        _on(screen, f"go-{n}", str(n), SCREENS[name], f"Go to {SCREENS[name]}", call=f"app.show('{name}')", shown=False)
        for name, n in NUMBERS.items()
    )


_UNDO = "Take back your latest rating, also one from an earlier session"
_REDO = "Bring back the rating that the latest undo took away"

ACTIONS: tuple[Action, ...] = (
    *(
        _on("app", f"show-{name}", f"f{n} alt+{n}", SCREENS[name], f"Go to {SCREENS[name]}", call=f"show('{name}')",
            shown=False, priority=True)
        for name, n in NUMBERS.items()
    ),
    _on("app", "palette", "ctrl+p", "palette", "Find any action by name", call="command_palette", shown=False,
        priority=True),
    _on("app", "help", "question_mark f12", "help", "Show the keys of this screen"),
    _on("app", "restart-engine", "f5", "restart engine", "Start the engine again", shown=False),
    _on("app", "quit", "ctrl+q", "quit", "Leave; training goes on without the app", shown=False, priority=True),
    #
    _on("prompt", "send", "enter ctrl+j alt+enter", "send", "Send the prompt (Enter while it is one line long)",
        when="writing"),
    _on("prompt", "stop", "escape", "stop", "Stop the answers being written; what was said is kept",
        when="answering"),
    _on("prompt", "drop", "ctrl+t", "drop", "Drop the prompts that wait, and forget those set aside; all stay in the "
        "history", priority=True),
    _on("prompt", "leave-input", "escape", "to answers", "Go from the prompt to the answers", when="writing"),
    _on("prompt", "write", "i escape", "write", "Write a prompt", when="answers"),
    *_scores("prompt", "answers"),
    _on("prompt", "good", "g", "good", "Label the answer in focus good", when="answers"),
    _on("prompt", "bad", "x", "bad", "Label the answer in focus bad", when="answers"),
    _on("prompt", "bad-one", "b", "bad", "Label the only answer bad", when="one answer"),
    *(
        _on("prompt", f"prefer-{c}", c, "prefer", "Prefer the answer with this letter to the others",
            when="several answers", call=f"prefer('{c}')")
        for c in "abcd"
    ),
    _on("prompt", "tie", "equals_sign", "tie", "The answers are equally good", when="several answers"),
    _on("prompt", "edit", "e", "edit", "Write a better answer over this one", when="answers"),
    _on("prompt", "note", "n", "note", "Note a remark about the answer", when="answers"),
    _on("prompt", "undo", "u", "undo", _UNDO, when="answers"),
    _on("prompt", "redo", "ctrl+r", "redo", _REDO, shown=False),
    _on("prompt", "copy", "y", "copy", "Copy the answer to the clipboard (OSC 52, also over SSH)", when="answers"),
    _on("prompt", "again", "r", "again", "Ask the same again with a fresh seed", when="answers"),
    _on("prompt", "previous", "left h", "previous", "Go to the answer on the left", when="answers", shown=False),
    _on("prompt", "next", "right l", "next", "Go to the answer on the right", when="answers", shown=False),
    _on("prompt", "language", "ctrl+l", "language", "Choose the language of the prompt", priority=True),
    _on("prompt", "parameters", "ctrl+g", "parameters", "Set temperature, top-p, length, seed, answers and system "
        "prompt", priority=True),
    _on("prompt", "history", "ctrl+f", "history", "Search earlier prompts", priority=True),
    _on("prompt", "editor", "ctrl+o", "editor", "Write the prompt in $EDITOR", shown=False, priority=True),
    #
    _on("review", "prefer-a", "a", "left", "The left answer is better", when="pair", call="choose('a')"),
    _on("review", "prefer-b", "b", "right", "The right answer is better", when="pair", call="choose('b')"),
    _on("review", "tie", "equals_sign", "tie", "Both are equally good", when="pair", call="choose('tie')"),
    _on("review", "both-bad", "x", "both bad", "Neither answer is acceptable", when="pair", call="choose('both-bad')"),
    *_scores("review", "single"),
    _on("review", "good", "g", "good", "A good answer", when="single", call="label(True)"),
    _on("review", "bad", "x b", "bad", "A bad answer", when="single", call="label(False)"),
    _on("review", "cannot-judge", "c", "can't judge", "Not yours to judge, say a language you do not read"),
    _on("review", "skip", "s", "skip", "Pass over this one for now"),
    _on("review", "edit", "e", "edit", "Write a better answer over this one", when="single"),
    _on("review", "note", "n", "note", "Note a remark about the answer"),
    _on("review", "undo", "u", "undo", _UNDO),
    _on("review", "redo", "ctrl+r", "redo", _REDO, shown=False),
    #
    _on("train", "start", "enter", "start", "Choose a recipe and start training on the feedback so far"),
    _on("train", "cancel", "c", "cancel", "Stop after this step and keep a checkpoint"),
    _on("train", "resume", "r", "resume", "Go on from the checkpoint"),
    _on("train", "compare", "v", "compare", "Compare runs: settings that differ, curves over each other, gains"),
    *_digits("train"),
    #
    _on("versions", "load", "enter", "load", "Answer with this version, and stay on it"),
    _on("versions", "answers", "o", "answers", "Read held-out answers before and after, with all that the gate found"),
    _on("versions", "publish", "p", "publish", "Serve this version from now on"),
    _on("versions", "rollback", "b", "roll back", "Go back to the version before the served one"),
    _on("versions", "follow", "f", "follow", "Follow newly published versions, or stay on the loaded one"),
    *_digits("versions"),
    #
    _on("dialog", "accept", "ctrl+j alt+enter", "accept", "Accept and close", priority=True),
    _on("dialog", "cancel", "escape", "cancel", "Close and change nothing"),
    _on("dialog", "choose", "space", "choose", "Choose the line in focus, or no longer", when="choosing several"),
    _on("dialog", "editor", "ctrl+o", "editor", "Go on writing in $EDITOR", when="text", shown=False, priority=True),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}


def of_screen(screen: str) -> tuple[Action, ...]:
    """The actions of one screen, in the order of the registry."""
    return tuple(action for action in ACTIONS if action.screen == screen)


_SPOKEN = {"question_mark": "?", "equals_sign": "=", "escape": "esc"}


def spoken(key: str) -> str:
    """A key as it is printed: `ctrl+p` is `^p`, `question_mark` is `?`."""
    if key.startswith("ctrl+") and len(key) == 6:
        return "^" + key[-1]
    return _SPOKEN.get(key, key)


def keys_page() -> str:
    """The reference of all keys as Markdown, for `docs/keys.md`."""
    lines = [
        "# Keys",
        "",
        "Written from `workbench/shell/actions.py`; `workbench keys` prints your own, remapped ones.",
        "",
        "To change a key, write `keymap.toml` into the workspace or into the configuration folder that",
        "`workbench doctor` names: one line an action, such as `\"review.skip\" = \"n\"` or",
        "`\"prompt.send\" = [\"ctrl+j\", \"f5\"]`.",
        "",
        "The letters `a` to `d` always prefer an answer and `g` and `x` always mean good and bad; `b` means bad",
        "where there is one answer only.",
    ]  # fmt: skip
    for screen, title in SCREENS.items():
        lines += ["", f"## {title}", "", "| key | action | what it does | when |", "|---|---|---|---|"]
        for action in of_screen(screen):
            keys = " ".join(f"`{spoken(key)}`" for key in action.keys)
            lines.append(f"| {keys} | `{action.id}` | {action.help} | {action.when} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(keys_page(), end="")
