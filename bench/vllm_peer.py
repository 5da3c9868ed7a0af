"""vLLM, and lm-evaluation-harness over it, on a file of work: run by the Python of vLLM's own environment.

    echo work.json | .venv-vllm/bin/python -m bench.vllm_peer

Reads names of work files, one a line, does each and writes what came of it beside it (work.json: work.answers.json),
then the name of that to standard output. The model stays loaded as long as the files name the same. Loading and
compiling are not timed, and the prefix cache is emptied before each file: each pays for its own shared beginning.

The engine is as vLLM has it, but for: prefix caching on, the dtype, and a context no longer than the work.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.lib.base.cli import run
from stages.lib.base.errors import BadInput, short

WAYS = ("vllm", "lm_eval")
CONTEXT = 4096  # tokens of a prompt and its answer, at most


@dataclass(frozen=True)
class Asked:
    """A file of work: the way (vllm, or lm_eval over it), a model's folder, an adapter's or none; rendered prompts,
    their tokens, the most new ones for each, the tokens that end an answer and the text that does, and of how many
    tokens the first one's log-probability is wanted."""

    way: str
    model: str
    adapter: str | None
    dtype: str
    prompts: list[str]
    ids: list[list[int]]
    limit: int
    stop: list[int]
    end: str
    logprobs: int = 0


@dataclass(frozen=True)
class Answered:
    """What came of it, with the first token's log-probabilities by token, if they were asked for."""

    seconds: float
    texts: list[str]
    logprobs: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def write(path: Path, row: Asked | Answered) -> None:
    """Write a file of work or of answers, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(row)), encoding="utf-8")
    part.replace(path)


def read_asked(path: Path) -> Asked:
    """A file of work. Raises BadInput, naming the file and what was found, if it is none."""
    row = _read(path, Asked)
    if row.way not in WAYS:
        raise BadInput(f"{path}: way: found {short(row.way)}; expected one of {', '.join(WAYS)}")
    if len(row.prompts) != len(row.ids) or not row.ids:
        raise BadInput(f"{path}: found {len(row.prompts)} prompts and {len(row.ids)} lists of tokens; expected as many")
    return row


def read_answered(path: Path, prompts: int) -> Answered:
    """A file of answers to so many prompts. Raises BadInput if it is none."""
    row = _read(path, Answered)
    if len(row.texts) != prompts:
        raise BadInput(f"{path}: found {len(row.texts)} answers; expected {prompts}")
    return row


def answers_file(work: Path) -> Path:
    return work.with_suffix(".answers.json")


def _read(path: Path, kind: type) -> Any:
    try:
        return kind(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); expected a JSON file, see bench/vllm_peer.py"
        ) from None
    except (TypeError, ValueError) as error:
        raise BadInput(f"{path}: no {kind.__name__} as bench/vllm_peer.py has it: {error}") from None


def main() -> None:
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what vLLM and its processes print must not come between
    loaded: tuple[Any, ...] = ()
    engine: Any = None
    for line in sys.stdin:
        path = Path(line.strip())
        asked = read_asked(path)
        named = (asked.way, asked.model, asked.adapter, asked.dtype)
        if named != loaded:
            engine, loaded = None, named  # the old one is let go first
            engine = load(asked)
        write(answers_file(path), answer(engine, asked))
        print(answers_file(path), file=said, flush=True)


def load(asked: Asked) -> Any:
    """vLLM's `LLM`, or the harness's model that holds one."""
    options: dict[str, Any] = {"dtype": asked.dtype, "max_model_len": CONTEXT, "enable_prefix_caching": True}
    if asked.adapter:
        options["max_lora_rank"] = json.loads(Path(asked.adapter, "adapter_config.json").read_text())["r"]
    if asked.way == "lm_eval":
        from lm_eval.models.vllm_causallms import VLLM

        return VLLM(pretrained=asked.model, batch_size="auto", lora_local_path=asked.adapter, **options)
    from vllm import LLM

    return LLM(model=asked.model, enable_lora=bool(asked.adapter), **options)


def answer(engine: Any, asked: Asked) -> Answered:
    """The answers to one file, and the seconds of the generation alone."""
    logprobs: list[dict[str, float]] = []
    if asked.way == "lm_eval":
        from bench import harness

        engine.model.reset_prefix_cache()
        seconds, texts = harness.answers(engine, asked.prompts, asked.end, asked.limit)
    else:
        from vllm import SamplingParams, TokensPrompt
        from vllm.lora.request import LoRARequest

        engine.reset_prefix_cache()
        settings = SamplingParams(
            temperature=0.0, max_tokens=asked.limit, stop_token_ids=asked.stop, logprobs=asked.logprobs or None
        )
        adapter = LoRARequest("adapter", 1, asked.adapter) if asked.adapter else None
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in asked.ids]
        start = time.perf_counter()
        out = [row.outputs[0] for row in engine.generate(prompts, settings, use_tqdm=False, lora_request=adapter)]
        seconds, texts = time.perf_counter() - start, [row.text for row in out]
        if asked.logprobs:
            logprobs = [{str(token): one.logprob for token, one in row.logprobs[0].items()} for row in out]
    return Answered(seconds, texts, logprobs, {name: _version(name) for name in ("vllm", "lm_eval", "torch")})


def _version(name: str) -> str:
    """Of an installed package; vLLM's for the CPU has another name than its module."""
    for each in (name, f"{name}-cpu"):
        try:
            return version(each)
        except ModuleNotFoundError:
            continue
    return "not installed"


if __name__ == "__main__":
    run(main)
