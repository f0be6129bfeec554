"""Commands that measure; each runs as `python -m benchmarks.NAME`. What they found is in docs/benchmarks.md."""

from trainer import native

native.configure()  # before torch is imported; it holds for the peers as well, which are started from here
