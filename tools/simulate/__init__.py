"""How often intervals and decisions of stages/lib/measure are right where the truth is known: docs/STATISTICS.md."""
