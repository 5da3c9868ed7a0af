"""Thoughts that a model writes before it speaks, as Qwen3 and DeepSeek-R1 do: read past, never read as the answer."""

OPENS, CLOSES = "<think>", "</think>"


def spoken(text: str) -> str:
    """What stands behind the last thought: all of a text without any, nothing where a thought was never closed."""
    said = text.rpartition(CLOSES)[2]
    return "" if OPENS in said else said


def opened(prompt: str) -> str:
    """The opening of a thought with which a rendered prompt ends, as DeepSeek-R1's do; it belongs to what follows."""
    return f"{OPENS}\n" if prompt.rstrip().endswith(OPENS) else ""
