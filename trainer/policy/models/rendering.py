"""Chat templates rendered as transformers renders them, without transformers: Jinja's sandbox, with the same filters,
functions and tags. A template is a program that came with a model; in the sandbox it can reach nothing but its inputs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def render(template: str, messages: Sequence[dict[str, str]], *, begin: bool, tokens: dict[str, str]) -> str:
    """A conversation as a chat template writes it.

    Args:
        messages: at least one, of `role` and `content`.
        begin: whether the model's answer is begun.
        tokens: special tokens by their names (`bos_token`), which templates may write.

    Raises:
        jinja2.exceptions.TemplateError: the template is none, or refuses the conversation; or whatever else is raised
            by what it computes.
    """
    if not messages:
        raise ValueError("a conversation has at least one message")
    return _compiled(template).render(
        messages=[dict(message) for message in messages],
        tools=None, documents=None, add_generation_prompt=begin, **tokens,
    )  # fmt: skip


@lru_cache
def _compiled(template: str) -> Any:
    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    sandbox.filters["tojson"] = _tojson
    sandbox.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Names,
    }
    return sandbox.from_string(template)


class _Generation(Extension):
    """`{% generation %}` marks what the model itself says; here that is rendered as it stands."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Jinja's own would escape what HTML knows."""
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:  # noqa: A002
    return datetime.now().strftime(format)


class _Dict:
    """`dict` without the attributes of a class, by which one could leave the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Names(Namespace):
    """Jinja's namespace without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `self` may be a name in it
        self, given = args[0], dict(*args[1:], **kwargs)
        for name in given:
            _check_name(name)
        Namespace.__init__(self, given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not write {name!r} to a namespace: it begins with an underscore")
