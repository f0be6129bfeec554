"""The one registry of what can be done: behind key bindings, footer, palette, help screen and `workbench keys`.

What can be done on a screen stands in its folder; here is what can be done everywhere and in dialogs.
"""

from __future__ import annotations

from workbench.screens import PLACES
from workbench.shell.action import Action, on

SCREENS = {"app": "Everywhere", **{place.name: place.title for place in PLACES}, "dialog": "In a dialog"}
"""Where actions live: identifier and title, in the order of the help."""

NUMBERS = {place.name: place.number for place in PLACES}
"""The number of each screen on the bar."""

EVERYWHERE: tuple[Action, ...] = (
    *(
        on("app", f"show-{place.name}", f"f{place.number} alt+{place.number}", place.title,
           f"Go to {place.title}", call=f"show('{place.name}')", shown=False, priority=True)
        for place in PLACES
    ),
    on("app", "palette", "ctrl+p", "palette", "Find any action by name", call="command_palette", shown=False,
        priority=True),
    on("app", "help", "question_mark f12", "help",
       "Show the keys of this screen; ? in a field where nothing is written yet", stays=True),
    on("app", "restart-engine", "f8", "restart engine", "Start the engine again", shown=False),
    on("app", "settings", "f7", "settings", "Choose language, rater, model, theme and the rest", shown=False,
       priority=True),
    on("app", "rater", "alt+r", "rater", "Choose who rates: somebody known, or somebody new", shown=False,
       priority=True),
    on("app", "model", "alt+m", "model", "Choose the model that answers: a bundled or local one, one used before, a "
        "path or a hub name", shown=False),
    on("app", "jump", "alt+j", "jump", "Put a letter on everything that takes the focus, and go where you press",
       shown=False, priority=True),
    on("app", "copy", "alt+c", "copy", "Copy the selection, or what is in focus: an answer, a row, a text", shown=False,
       priority=True),
    on("app", "themes", "alt+t", "theme", "Choose the colours, and see them while you do", shown=False, priority=True),
    on("app", "keymap", "alt+k", "keys", "Give actions other keys", shown=False, priority=True),
    on("app", "about", "alt+i", "about", "Versions, paths, engine and model, and the end of the logs", shown=False,
       priority=True),
    on("app", "quit", "ctrl+q", "quit", "Leave; training goes on without the app", shown=False, priority=True),
)  # fmt: skip

IN_DIALOGS: tuple[Action, ...] = (
    on("dialog", "accept", "ctrl+j alt+enter", "accept", "Accept and close", short="ok", priority=True),
    on("dialog", "cancel", "escape", "cancel", "Close and change nothing"),
    on("dialog", "choose", "space", "choose", "Choose the line in focus, or no longer", when="choosing several"),
    on("dialog", "examples", "alt+e", "examples", "Show what would be learned from, word for word", when="a recipe",
       priority=True),
    on("dialog", "help", "question_mark f12", "help", "Show these keys; ? in a field where nothing is written yet",
       call="app.help"),
    on("dialog", "editor", "ctrl+o", "editor", "Go on writing in $EDITOR", when="text", shown=False, priority=True),
)  # fmt: skip

ACTIONS = (*EVERYWHERE, *(action for place in PLACES for action in place.actions()), *IN_DIALOGS)
BY_ID = {action.id: action for action in ACTIONS}


def of_screen(screen: str) -> tuple[Action, ...]:
    """The actions of one screen, in the order of the registry."""
    return tuple(action for action in ACTIONS if action.screen == screen)


_SPOKEN = {"question_mark": "?", "equals_sign": "=", "escape": "esc", "left": "←", "right": "→", "up": "↑", "down": "↓",
           "slash": "/", "left_square_bracket": "[", "right_square_bracket": "]"}  # fmt: skip


def spoken(key: str) -> str:
    """A key as it is printed: `ctrl+p` is `^p`, `question_mark` is `?`."""
    if key.startswith("ctrl+") and len(key) == 6:
        return "^" + key[-1]
    return _SPOKEN.get(key, key)


def _places() -> str:
    """The function keys of the screens, as a list in words."""
    *some, last = (f"`f{number}`" for number in NUMBERS.values())
    return f"{', '.join(some)} and {last}"


def keys_page() -> str:
    """The reference of all keys as Markdown, for `docs/keys.md`."""
    lines = [
        "# Keys",
        "",
        "Written from `workbench/shell/actions.py` and the screens' own; `workbench keys` prints yours, remapped.",
        "",
        "`alt+k` finds an action by words of what it does or by a key, and gives it another one. Or write",
        "`keymap.toml` into the workspace or into the configuration folder that `workbench doctor` names: one line an",
        "action, such as `\"review.skip\" = \"n\"` or `\"prompt.send\" = [\"ctrl+j\", \"f9\"]`.",
        "",
        "The letters `a` to `d` always prefer an answer and `g` and `x` always mean good and bad; `b` means bad",
        "where there is one answer only. In a ranking the letters are typed one after the other, the best first.",
        "While a sheet of choices is open (tags, reasons), its keys are all that a screen does.",
        f"Digits score, and in the sheet of tags say how severe one is: screens have {_places()}, or",
        "`alt` with their number. `esc` stops what is under way in front of you, and does nothing else: it closes a",
        "dialog, or what was opened from a list, without changing anything; on Prompt it ends the writing, the",
        "engine's and yours, with all that was written kept, and leaves you at the answers; elsewhere nothing is under",
        "way, and nothing happens. `tab` goes to the other answer; where there is room for one only, it shows it.",
    ]  # fmt: skip
    for screen, title in SCREENS.items():
        lines += ["", f"## {title}", "", "| key | action | what it does | when |", "|---|---|---|---|"]
        for action in of_screen(screen):
            keys = " ".join(f"`{spoken(key)}`" for key in action.keys)
            lines.append(f"| {keys} | `{action.id}` | {action.help} | {action.when} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(keys_page(), end="")
