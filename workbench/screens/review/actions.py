"""What can be done on Review: judge the item in front, and look back at what was judged."""

from __future__ import annotations

from storage.feedback.tag_sheet import REASONS
from workbench.shell.action import REDO, UNDO, Action, in_words, on, scores, tags

SCREEN = "review"
_CANNOT = "Not yours to judge: say why with one more key (a language or a domain you do not know, both unclear, other)"

ACTIONS: tuple[Action, ...] = (
    on(SCREEN, "prompt", "p", "prompt", "Read the whole prompt, where there is no room for it above the answers",
       short="all"),
    on(SCREEN, "prefer-a", "a", "left", "The left answer is better", when="pair", call="choose('a')"),
    on(SCREEN, "prefer-b", "b", "right", "The right answer is better", when="pair", call="choose('b')"),
    on(SCREEN, "tie", "equals_sign", "tie", "Both are equally good", when="pair", call="choose('tie')"),
    on(SCREEN, "both-bad", "x", "both bad", "Neither answer is acceptable", when="pair", call="choose('both-bad')"),
    *(
        on(SCREEN, f"rank-{c}", c, "rank", "Rank the answers: type their letters, the best first", when="ranking",
           call=f"rank('{c}')")
        for c in "abcd"
    ),
    on(SCREEN, "rank-equal", "equals_sign", "equal", "The letter before and the next one are equally good",
       when="ranking"),
    on(SCREEN, "unrank", "backspace", "take off", "Take the last letter off the ranking", when="ranking"),
    on(SCREEN, "none-good", "x", "none good", "None of the answers is acceptable", when="ranking"),
    on(SCREEN, "next", "tab right l", "other", "Go to the other answer, which a small terminal shows in its place",
       when="several", shown=False),
    on(SCREEN, "previous", "shift+tab left h", "other", "Go to the other answer, the other way round", when="several",
       shown=False),
    *scores(SCREEN, "single"),
    on(SCREEN, "good", "g", "good", "A good answer", when="single"),
    on(SCREEN, "bad", "x b", "bad", "A bad answer", when="single"),
    on(SCREEN, "next-attribute", "j", "attribute", "Go to the next attribute", when="several attributes",
       call="attribute(1)"),
    on(SCREEN, "previous-attribute", "k", "attribute", "Go to the attribute before", when="several attributes",
       call="attribute(-1)"),
    on(SCREEN, "skip", "s", "skip", "Pass over this one for now"),
    on(SCREEN, "cannot-judge", "c", "can't judge", _CANNOT, when="one or two", call="cannot_judge(2)", short="can't"),
    on(SCREEN, "cannot-judge-ranking", "C", "can't judge", _CANNOT, when="ranking", call="cannot_judge(4)",
       short="can't"),
    *(
        on(SCREEN, f"because-{name.replace(' ', '-')}", key, name, f"It cannot be judged: {name}", when="can't judge",
           sheet="reasons", call=f"reason('{key}')")
        for key, name in REASONS.items()
    ),
    on(SCREEN, "close-reasons", "escape", "close", "Close the reasons, and say nothing", when="can't judge",
       sheet="reasons", call="close_sheet", stays=True),
    on(SCREEN, "edit", "e", "edit", "Write a better answer over this one", when="single"),
    *tags(SCREEN, "item"),
    *in_words(SCREEN, ""),
    on(SCREEN, "back", "left_square_bracket", "earlier", "Look at what was judged before, and change it"),
    on(SCREEN, "forward", "right_square_bracket", "later", "Go back towards the item that waits"),
    on(SCREEN, "markdown", "v", "markdown", "Show answers as Markdown, or as plain text", shown=False),
    on(SCREEN, "session", "S", "session", "How the session goes: what was judged, how fast, in which languages",
       shown=False),
    on(SCREEN, "which", "f", "which", "Choose what is asked about: language, task, version, tag, text or a working set",
       shown=False),
    on(SCREEN, "agreement", "A", "agreement", "How far raters agree, and how each of them rates", shown=False),
    on(SCREEN, "undo", "u", "undo", UNDO, stays=True),
    on(SCREEN, "redo", "ctrl+r", "redo", REDO, shown=False),
)  # fmt: skip
