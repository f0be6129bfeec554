"""Commands that measure; each runs as `python -m benchmarks.NAME`. What they found is in docs/benchmarks.md."""
