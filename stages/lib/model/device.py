"""The processor that a model runs on: which, in what it computes, how much of its memory is free."""

import ctypes
import logging
import warnings
from typing import TYPE_CHECKING

import psutil

from stages.lib.base import processes

if TYPE_CHECKING:
    import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h; -1 never trims (man mallopt)


def device() -> "torch.device":
    """This process's own GPU, by its place among the stage's processes, if there are GPUs; else the CPU."""
    import torch

    return torch.device(f"cuda:{processes.index()}" if torch.cuda.is_available() else "cpu")


def kind() -> str:
    """The kind of processor, whose kernels decide the last bits: a GPU's name, or which instructions a CPU's may use.

    Not how many processes or threads share the work: several give one process's answers.
    """
    import torch

    where = device()
    return torch.cuda.get_device_name(where) if where.type == "cuda" else torch.backends.cpu.get_cpu_capability()


def computed_in(dtype: str) -> str:
    """The dtype of params, or float32 in place of bfloat16 on a CPU that has no instructions for 16 bits.

    Such a CPU (AVX2: most laptops) multiplies in bfloat16 a fifth as fast as in float32, and rounds every product. What
    bfloat16 holds, float32 holds as well, so the weights are the same.
    """
    from stages.lib.model.linear import has_16_bits

    return "float32" if dtype == "bfloat16" and device().type == "cpu" and not has_16_bits() else dtype


def free_memory(where: "torch.device") -> int:
    """Bytes this process can still allocate: its share of the host's, or what is free on its GPU or held unused."""
    import torch

    if where.type != "cuda":
        return psutil.virtual_memory().available // processes.count()
    unused = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
    return torch.cuda.mem_get_info(where)[0] + unused


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory, of the host or of a GPU, did not hold what was asked of it."""
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def quiet() -> None:
    """Keep libraries' load bars and hints off stderr; the stages draw their own progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def reuse_freed_memory() -> None:
    """Have glibc keep what is freed for the next tensor.

    As it comes, it returns every large block to the system, which zeroes its pages again at their next use: that was a
    sixth of the time of a training step, a tenth of generation. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError):  # not glibc
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
