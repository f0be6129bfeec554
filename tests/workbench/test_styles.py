"""Style sheets: once it is loaded, a screen's sheet holds for the whole app, so that none may style another's ids."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import workbench.screens

SHEETS = sorted(Path(workbench.screens.__file__).parent.glob("*/style.tcss"))
RULE = re.compile(r"([^{}]+)\{[^{}]*\}")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def ids(sheet: Path) -> set[str]:
    """The ids that a sheet styles wherever they are: those in selectors without the class of a screen or a dialog."""
    selectors = [one for rule in RULE.findall(COMMENT.sub("", sheet.read_text())) for one in rule.split(",")]
    return {name for one in selectors if not re.search(r"\b[A-Z]", one) for name in re.findall(r"#([\w-]+)", one)}


def test_no_id_is_styled_by_two_screens() -> None:
    assert len(SHEETS) > 5
    shared = {"dialog", "page"}  # of all dialogs
    styled = Counter(name for sheet in SHEETS for name in ids(sheet) - shared)
    assert [name for name, times in styled.items() if times > 1] == []
