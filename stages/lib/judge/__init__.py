"""Safeguard models: their protocols (guards.py, pure) and asking them. For the judge stage; measure reads protocols."""
