"""How data/embedded and the guard in models/embedded were made, and how far the guard can be believed."""

from pathlib import Path

DATA = Path(__file__).parents[2] / "data" / "embedded"
