"""What a stage cost: wall time, tokens per second, peak memory. Kept apart from metrics: it differs run to run."""

import resource
import sys
from pathlib import Path

from stages.lib.base.files import write_json


def cost(stage: str, seconds: float, rows: int, tokens: int | None) -> dict[str, str | float | None]:
    """A stage's seconds, rows, tokens, tokens per second and the peak memory of this process in MiB (host and GPU).

    Tokens are those trained on, written or judged; None where no model was at work.
    """
    return {
        "stage": stage,
        "seconds": round(seconds, 1),
        "rows": rows,
        "tokens": tokens,
        "tokens_per_second": round(tokens / seconds, 1) if tokens else None,
        "peak_memory_mib": peak_memory_mib(),
        "peak_gpu_memory_mib": peak_gpu_memory_mib(),
    }


def write_cost(stage: str, seconds: float, rows: int, tokens: int | None) -> None:
    """Write a stage's `cost` to data/costs/<stage>.json, from where the report stage collects them."""
    write_json(Path(f"data/costs/{stage}.json"), cost(stage, seconds, rows, tokens))


def peak_memory_mib() -> int:
    """The most memory this process has held, in MiB.

    From Linux's VmHWM where there is one: getrusage's figure is at least that of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return (
            next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) // 1024
        )
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20


def peak_gpu_memory_mib() -> int:
    """The most GPU memory torch has held, in MiB; 0 without a GPU or torch."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() // 2**20 if torch and torch.cuda.is_available() else 0
