"""How data/embedded and the guard in models/embedded were made, and how far the guard can be believed."""
