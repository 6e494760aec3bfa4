"""Comparisons with peers, one module each: ``run() -> list[BenchResult]``; ``relic bench NAME`` runs one."""
