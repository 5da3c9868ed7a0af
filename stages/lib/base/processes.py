"""A stage on several GPUs: one process for each, started by torch's launcher, which is `accelerate launch`'s, too.

machine.processes of params.yaml says how many; no stage depends on it, so that DVC's cache serves any number. A stage
started with `accelerate launch --multi_gpu -m stages.NAME` takes the launcher's number instead. All of them run on one
machine. The first one speaks and writes; what another one computed it gets by `gathered`.
"""

import ctypes
import logging
import os
import signal
import sys
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

from stages.lib.base.errors import BadInput

PR_SET_PDEATHSIG = 1  # prctl(2)
PATIENCE = timedelta(days=7)  # a process may wait so long for another's share; if one dies, the launcher ends the rest


def count() -> int:
    """How many processes work on this stage."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def index() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def is_first() -> bool:
    return index() == 0


def launched() -> bool:
    """Whether this is one of several processes, rather than the command that a person or DVC has called."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_loss_of_another(error: Exception) -> bool:
    """Whether all that is wrong is that another of the processes has ended (gloo says it; NCCL waits for the end)."""
    return count() > 1 and isinstance(error, RuntimeError) and "by peer" in str(error)


def spread(processes: int) -> None:
    """Run this stage as so many processes and end with their exit code. Returns in each of them, and where it is one.

    Raises BadInput if there are GPUs, but fewer.
    """
    if launched():
        _end_with_the_launcher()
        if count() > 1:
            _connect()  # before any model is loaded: it makes this process's GPU the current one
        return
    if processes == 1:
        return
    import torch
    from accelerate.utils import check_cuda_p2p_ib_support
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise BadInput(f"machine.processes: found {processes}, but there are {gpus} GPUs here; set it to that or less")
    logging.disable()  # of the launcher, which takes ten lines to say that a process failed
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if not check_cuda_p2p_ib_support():  # GPUs of the RTX 4000 series, as `accelerate launch` treats them
        os.environ |= {"NCCL_P2P_DISABLE": "1", "NCCL_IB_DISABLE": "1"}
    stage = sys.modules["__main__"].__spec__.name
    try:
        with TemporaryDirectory() as logs:
            once = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=processes,
                run_id="stage",
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="127.0.0.1",
                max_restarts=0,
                signals_to_handle="SIGTERM,SIGINT,SIGQUIT",  # not SIGHUP, which nohup asks to be ignored
                logs_specs=DefaultLogsSpecs(log_dir=logs),
            )
            elastic_launch(once, sys.executable)("-m", stage, *sys.argv[1:])
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode > 0:  # and it has said why
            sys.exit(failure.exitcode)
        memory = "if nobody did that, the machine ran out of memory: set machine.processes or the batch size lower. "
        hint = memory if failure.exitcode == -signal.SIGKILL else ""
        raise BadInput(
            f"process {number} of {processes} was ended by signal {-failure.exitcode}; {hint}What was done is kept"
        ) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        sys.exit(128 + error.sigval)
    sys.exit(0)


def from_first(value: Any) -> Any:
    """The first process's value, in all of them."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    return broadcast_object_list([value])[0]


def gathered(values: dict[Any, Any]) -> dict[Any, Any]:
    """What all processes hold together, in all of them."""
    if count() == 1:
        return values
    from accelerate.utils import gather_object

    return {key: value for part in gather_object([values]) for key, value in part.items()}


def wait() -> None:
    """Go on when all processes have come here."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def _connect() -> None:
    """Connect the processes, NCCL between GPUs, gloo between CPUs; accelerate knows them from here on."""
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def _end_with_the_launcher() -> None:
    """Have Linux kill this process with the one that started it, which may be killed without a chance to do so.

    Ctrl-C ends it at once, not when Python next looks: it may be waiting in a GPU's library. Its launcher says so.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
