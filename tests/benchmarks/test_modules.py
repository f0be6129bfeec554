"""Every benchmark can be started: what it takes from the rooms is there."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import benchmarks


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(benchmarks.__path__)])
def test_a_benchmark_finds_what_it_imports(name):
    if name != "__main__":
        assert importlib.import_module(f"benchmarks.{name}").__doc__, "what --help says"
