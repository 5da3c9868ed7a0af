"""What people would use instead: the paper's loop, transformers in padded and in continuous batches,
lm-evaluation-harness, vLLM, llama.cpp.

Each takes rendered prompts and a limit of new tokens and gives back its seconds and each prompt's answer.
lm-evaluation-harness and llama-cpp-python are optional (bench/requirements.txt); vLLM, and the harness over it, run in
an environment of their own (bench/requirements-vllm.txt).
"""

import contextlib
import importlib.util
import logging
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from bench import harness
from bench.vllm_peer import Asked, answers_file, read_answered, write
from stages.lib.base.errors import BadInput
from stages.lib.generate.decoding import PREFILL
from stages.lib.generate.engine import end_tokens
from stages.lib.model.attention import shared_prefix

ROOT = Path(__file__).parents[1]
VLLM_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB: room for 256 of these prompts at once, and no more, so that it fits beside us
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

Run = Callable[[list[str], int], tuple[float, list[str]]]  # seconds and texts


def installed(name: str) -> bool:
    """Whether an optional peer is there."""
    return importlib.util.find_spec(name) is not None


def padded(model: Any, tokenizer: Any, batch_size: int) -> Run:
    """transformers' `generate` in padded batches, longest prompts first; batches of one are the paper's public code."""
    settings = GenerationConfig(
        do_sample=False, eos_token_id=sorted(end_tokens(model, tokenizer)), pad_token_id=tokenizer.pad_token_id
    )

    def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        order = sorted(range(len(prompts)), key=lambda n: -len(prompts[n]))
        texts = {}
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            batch = tokenizer(
                [prompts[row] for row in rows], add_special_tokens=False, padding=True, return_tensors="pt"
            ).to(model.device)
            with torch.inference_mode():
                out = model.generate(**batch, generation_config=settings, max_new_tokens=limit)
            new = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
            texts |= dict(zip(rows, new, strict=True))
        return time.perf_counter() - start, [texts[row] for row in range(len(prompts))]

    return run


def lm_eval(model: Any, tokenizer: Any, batch_size: int) -> Run:
    """lm-evaluation-harness's `hf` model; the time is that of its generation alone."""
    from lm_eval.models.huggingface import HFLM

    logging.disable(logging.WARNING)
    model.tie_weights()
    model_of_it = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    return lambda prompts, limit: harness.answers(model_of_it, prompts, tokenizer.eos_token, limit)


def continuous(model: Any, tokenizer: Any) -> Run:
    """transformers' own continuous batching, `generate_batch`, with a cache for all prompts at once.

    Left to itself it takes nine tenths of the machine's memory for the cache, and attends over all of it.
    """

    def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        settings = GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(end_tokens(model, tokenizer)),
            pad_token_id=tokenizer.pad_token_id,
            max_new_tokens=limit,
        )
        page = ContinuousBatchingConfig().page_size
        sizes = ContinuousBatchingConfig(
            num_blocks=sum(math.ceil((len(row) + limit) / page) for row in ids), max_batch_tokens=PREFILL
        )
        found = model.generate_batch(ids, generation_config=settings, continuous_batching_config=sizes)
        if len(found) < len(ids):
            raise BadInput(f"generate_batch: {len(found)} answers to {len(ids)} prompts; its log says why")
        texts = tokenizer.batch_decode([row.generated_tokens for row in found.values()], skip_special_tokens=True)
        return time.perf_counter() - start, texts

    return run


def vllm_python() -> str | None:
    """The Python of vLLM's own environment: $AFTERTUNE_VLLM, or what `make bench` made; None where it is not."""
    found = os.environ.get("AFTERTUNE_VLLM") or str(ROOT / ".venv-vllm" / "bin" / "python")
    return found if Path(found).is_file() else None


@contextlib.contextmanager
def in_vllm(asked: Asked, tokenizer: Any, versions: dict[str, str]) -> Iterator[Run]:
    """vLLM in a process of its own, which keeps the model of `asked` loaded; its prompts and limit are those of each
    call. What it is made of is written to `versions`."""
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            [vllm_python() or "", "-m", "bench.vllm_peer"],
            cwd=ROOT,
            env={**os.environ, **VLLM_SETTINGS},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

        def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
            ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
            # of one token alone its probability is wanted, as a judge's verdict is read; 20 is the most vLLM gives
            now = replace(asked, prompts=prompts, ids=ids, limit=limit, logprobs=20 if limit == 1 else 0)
            file = Path(folder, "work.json")
            write(file, now)
            with contextlib.suppress(BrokenPipeError):
                print(file, file=process.stdin, flush=True)
            if not process.stdout.readline():
                lines = Path(folder, "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise BadInput(f"{asked.way} in vLLM's environment ended early: {' / '.join(lines[-3:])}")
            answered = read_answered(answers_file(file), len(prompts))
            versions.update(answered.versions)
            return answered.seconds, answered.texts

        try:
            yield run
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def llama_cpp(gguf: Path, tokenizer: Any, slots: int, threads: int) -> Run:
    """llama.cpp with the prompts' common beginning computed once and shared between its sequences.

    Continuous batching as its server does it: a sequence that ends makes place for the next prompt in the same batch.
    """
    import llama_cpp as api
    import numpy

    @api.llama_log_callback
    def silent(_level: int, _text: bytes, _data: Any) -> None:
        pass

    api.llama_log_set(silent, None)
    api.llama_backend_init()
    settings = api.llama_model_default_params()
    loaded = api.llama_model_load_from_file(str(gguf).encode(), settings)
    vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(loaded))
    end = tokenizer.eos_token_id
    batch_tokens = 2048

    def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
        start = time.perf_counter()
        ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        prefix = shared_prefix(ids)
        rest = [row[prefix:] for row in ids]
        options = api.llama_context_default_params()
        options.n_ctx = prefix + slots * (max(map(len, rest)) + limit)
        options.n_batch, options.n_ubatch, options.n_seq_max = batch_tokens, 512, slots + 1
        options.n_threads = options.n_threads_batch = threads
        options.kv_unified = True
        context = api.llama_init_from_model(loaded, options)
        memory = api.llama_get_memory(context)
        batch = api.llama_batch_init(batch_tokens, 0, 1)

        def add(token: int, place: int, sequence: int, wanted: bool) -> None:
            n = batch.n_tokens
            batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.logits[n] = token, place, 1, wanted
            batch.seq_id[n][0] = sequence
            batch.n_tokens = n + 1

        def decode() -> None:
            if api.llama_decode(context, batch):
                raise RuntimeError("llama_decode failed")

        batch.n_tokens = 0
        for place, token in enumerate(ids[0][:prefix]):
            add(token, place, 0, place == prefix - 1)
        if prefix:
            decode()
        waiting = sorted(range(len(ids)), key=lambda n: -len(ids[n]))
        active: dict[int, int] = {}  # sequence → prompt
        written: dict[int, list[int]] = {}
        while waiting or active:
            batch.n_tokens = 0
            outputs = {}
            for sequence, prompt in active.items():
                outputs[batch.n_tokens] = sequence
                add(written[prompt][-1], len(ids[prompt]) + len(written[prompt]) - 1, sequence, True)
            for sequence in range(1, slots + 1):
                if sequence in active or not waiting or batch.n_tokens + len(rest[waiting[0]]) > batch_tokens:
                    continue
                prompt = waiting.pop(0)
                active[sequence], written[prompt] = prompt, []
                api.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
                for place, token in enumerate(rest[prompt], prefix):
                    last = place == len(ids[prompt]) - 1
                    if last:
                        outputs[batch.n_tokens] = sequence
                    add(token, place, sequence, last)
            decode()
            for n, sequence in outputs.items():
                logits = numpy.ctypeslib.as_array(api.llama_get_logits_ith(context, n), (vocabulary,))
                new = written[active[sequence]]
                new.append(int(logits.argmax()))
                if new[-1] == end or len(new) == limit:
                    del active[sequence]
                    api.llama_memory_seq_rm(memory, sequence, -1, -1)
        api.llama_batch_free(batch)
        api.llama_free(context)
        texts = tokenizer.batch_decode([written[n] for n in range(len(ids))], skip_special_tokens=True)
        return time.perf_counter() - start, texts

    run.log = silent  # the library calls it as long as it runs; ctypes does not keep it alive
    return run
