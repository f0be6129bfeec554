"""The small dialog for what shapes an answer."""

from __future__ import annotations

import msgspec

from storage.records import Sampling
from workbench.shell.session import Session
from workbench.widgets.dialogs import Field, FormDialog
from workbench.widgets.parsing import number, whole_number

MOST_CANDIDATES = 4


def dialog(session: Session) -> FormDialog:
    """A form over the session's parameters."""
    sampling = session.sampling
    seed = "" if session.seed is None else str(session.seed)
    return FormDialog(
        "Parameters",
        [
            Field("candidates", "answers", str(session.candidates), whole_number(1, MOST_CANDIDATES), "1 to 4"),
            Field("temperature", "temperature", f"{sampling.temperature:g}", number(0, 10), "0 is greedy"),
            Field("top_p", "top-p", f"{sampling.top_p:g}", number(0.001, 1), "1 keeps all"),
            Field("max_new_tokens", "longest answer", str(sampling.max_new_tokens), whole_number(1, 100_000), "tokens"),
            Field("seed", "seed", seed, lambda text: None if not text else whole_number(0, 2**31 - 1)(text),
                  "empty draws a fresh one"),
            Field("system", "system prompt", session.system, str, "may be empty"),
        ],
    )  # fmt: skip


def changes(values: dict[str, object], sampling: Sampling) -> dict[str, object]:
    """The form's values as changes of the session; what the form lacks comes from `sampling`."""
    shaped = {name: values[name] for name in ("temperature", "top_p", "max_new_tokens")}
    kept = {name: values[name] for name in ("candidates", "seed", "system")}
    return {**kept, "sampling": msgspec.convert({**msgspec.to_builtins(sampling), **shaped}, Sampling)}
