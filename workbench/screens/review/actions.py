"""What can be done on Review: judge the item in front."""

from __future__ import annotations

from workbench.shell.action import REDO, UNDO, Action, in_words, on, scores

SCREEN = "review"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "prompt", "p", "prompt", "Read the whole prompt, where there is no room for it above the answers",
       short="all"),
    on(SCREEN, "prefer-a", "a", "left", "The left answer is better", when="pair", call="choose('a')"),
    on(SCREEN, "prefer-b", "b", "right", "The right answer is better", when="pair", call="choose('b')"),
    on(SCREEN, "tie", "equals_sign", "tie", "Both are equally good", when="pair", call="choose('tie')"),
    on(SCREEN, "both-bad", "x", "both bad", "Neither answer is acceptable", when="pair", call="choose('both-bad')"),
    on(SCREEN, "next", "tab right l", "other", "Go to the other answer, which a small terminal shows in its place",
       when="pair", shown=False),
    on(SCREEN, "previous", "shift+tab left h", "other", "Go to the other answer, the other way round", when="pair",
       shown=False),
    *scores(SCREEN, "single"),
    on(SCREEN, "good", "g", "good", "A good answer", when="single", call="label(True)"),
    on(SCREEN, "bad", "x b", "bad", "A bad answer", when="single", call="label(False)"),
    on(SCREEN, "skip", "s", "skip", "Pass over this one for now"),
    on(SCREEN, "cannot-judge", "c", "can't judge", "Not yours to judge, say a language you do not read", short="can't"),
    on(SCREEN, "edit", "e", "edit", "Write a better answer over this one", when="single"),
    *in_words(SCREEN, ""),
    on(SCREEN, "undo", "u", "undo", UNDO, stays=True),
    on(SCREEN, "redo", "ctrl+r", "redo", REDO, shown=False),
)  # fmt: skip
