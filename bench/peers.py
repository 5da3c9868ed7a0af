"""What people would use instead: the paper's loop, transformers in padded batches, lm-evaluation-harness, llama.cpp.

Each takes rendered prompts and a limit of new tokens and gives back its seconds and each prompt's answer.
lm-evaluation-harness and llama-cpp-python are optional (bench/requirements.txt).
"""

import contextlib
import importlib.util
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from stages.lib.generate.engine import end_tokens
from stages.lib.model.attention import shared_prefix

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


TASK = """task: prompts
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{prompt}}}}"
doc_to_target: ""
num_fewshot: 0
generation_kwargs: {{until: ["{end}"], max_gen_toks: {limit}, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""


def lm_eval(model: Any, tokenizer: Any, batch_size: int) -> Run:
    """lm-evaluation-harness's `hf` model on a local task file; the time is that of its generation alone."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    logging.disable(logging.WARNING)
    model.tie_weights()
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    taken = []
    generate = harness.generate_until

    def timed(*args: Any, **kwargs: Any) -> list[str]:
        start = time.perf_counter()
        out = generate(*args, **kwargs)
        taken.append(time.perf_counter() - start)
        return out

    harness.generate_until = timed

    def run(prompts: list[str], limit: int) -> tuple[float, list[str]]:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            file = Path(folder, "prompts.jsonl")
            file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
            task = Path(folder, "prompts.yaml")
            task.write_text(TASK.format(file=file, end=tokenizer.eos_token, limit=limit), encoding="utf-8")
            found = simple_evaluate(
                harness, tasks=["prompts"], task_manager=TaskManager(include_path=folder), bootstrap_iters=0
            )
        samples = sorted(found["samples"]["prompts"], key=lambda sample: sample["doc_id"])
        return taken[-1], [sample["resps"][0][0] for sample in samples]

    return run


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
