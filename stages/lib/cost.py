"""What a stage cost: wall time, tokens per second, peak memory. Kept apart from metrics: it differs run to run."""

import resource
import sys
from pathlib import Path

from stages.lib.records import write_json


def write_cost(stage: str, seconds: float, rows: int, tokens: int | None) -> None:
    """Write data/costs/<stage>.json: seconds, rows, tokens, tokens per second, peak memory in MiB (host and GPU).

    Tokens are those trained on, written or judged; None where no model was at work.
    """
    cost = {
        "stage": stage,
        "seconds": round(seconds, 1),
        "rows": rows,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1) if tokens else None,
        "peak_memory_mib": _peak_host_mib(),
        "peak_gpu_memory_mib": _peak_gpu_mib(),
    }
    write_json(Path(f"data/costs/{stage}.json"), cost)


def _peak_host_mib() -> int:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def _peak_gpu_mib() -> int:
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() // 2**20 if torch and torch.cuda.is_available() else 0
