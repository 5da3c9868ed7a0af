"""Does a server give our engine's answers? The same prompts to both, in 16 bits, answer by answer.

    python -m tools.serve -- python -m bench.served             models of params.yaml, models/tuned: 5-shot questions
    python -m tools.serve -- python -m bench.served --rows 256
    python -m tools.serve judge -- python -m bench.served judge     verdicts of judge.model on models' responses

Questions are GSM8K's under $AFTERTUNE_DATA, else the embedded ones (work.py); responses are the validation split's in
data/embedded/guard_responses.jsonl. Prints a table: the share of identical answers, and the difference of what is
measured, with its 95 % interval. The seconds are of one run each, one engine after the other, and no benchmark: the
server is warm and holds its memory meanwhile.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bench import work
from stages.lib.base.cli import parser, run
from stages.lib.base.errors import BadInput
from stages.lib.base.measured import SUBJECTS, weights
from stages.lib.base.params import Params, load_params
from stages.lib.generate import ask
from stages.lib.generate.connect import check_apart, connect, connect_tuned
from stages.lib.generate.engine import Engine
from stages.lib.judge.safeguard import ask_llama_guard, load_guard, served_guard
from stages.lib.measure.stats import paired_change
from stages.lib.model.models import load_subject, subject_files
from stages.lib.prompts.gsm8k import is_correct
from stages.lib.report.wording import markdown_table, pct, points

HEAD = ("answers", "n", "identical", "ours", "server's", "difference", "95 % interval", "our seconds", "its seconds")


def main() -> None:
    top = parser(__doc__)
    top.add_argument("what", nargs="?", choices=["math", "judge"], default="math")
    top.add_argument("--rows", type=int, default=64)
    top.add_argument("--tokens", type=int, default=256, help="new tokens of a math answer, at most [256]")
    arguments = top.parse_args()
    params = load_params()
    if arguments.what == "judge":
        rows = [judged(params, arguments.rows)]
    else:
        rows = [answered(name, params, arguments.rows, arguments.tokens) for name in SUBJECTS]
    print(markdown_table(rows))


def answered(subject: str, params: Params, rows: int, tokens: int) -> dict[str, str]:
    """A line of the table: a subject's answers to math questions, right by the flexible rule."""
    model, folder = params.model.model_copy(update={"quantization": "none"}), weights(subject)
    files = subject_files(model, folder, subject == "tuned")
    engine = Engine(*load_subject(model, folder, subject == "tuned"), params.gen_math.batch_size)
    if subject == "tuned":
        server = connect_tuned(files, model.name, folder, params.machine, engine.tokenizer, None)
    else:
        server = connect("base", model.name, files.weights, engine.tokenizer, params.machine, None)
    job = work.math_work(engine.tokenizer)
    prompts, gold = job.prompts[:rows], job.gold[:rows]
    if subject == "tuned":
        check_apart(server, files, model.name, prompts)
    (ours, took), (theirs, took_them) = (
        timed(lambda by=by: ask.greedy(by, prompts, tokens, subject, params.gen_math.end_repetition))
        for by in (engine, server)
    )
    right = [
        [is_correct(each.text, one, "flexible") for each, one in zip(of, gold, strict=True)] for of in (ours, theirs)
    ]
    return line(f"{subject} ({server.engine})", ours, theirs, right, (took, took_them))


def judged(params: Params, rows: int) -> dict[str, str]:
    """A line of the table: the guard's verdicts, safe or not, on what models wrote to hazard prompts."""
    if params.judge.protocol != "llama_guard_3":
        raise BadInput(f"judge.protocol: found {params.judge.protocol}; expected llama_guard_3, by the first token")
    folder = work.ROOT / "data/embedded"
    prompts = {row["id"]: row["prompt"] for row in read(folder / "guard_hazards.jsonl") if row["split"] == "validation"}
    written = [row for row in read(folder / "guard_responses.jsonl") if row["prompt_id"] in prompts]
    written = [row for row in written if row["response"].strip()][:rows]
    pairs = [(prompts[row["prompt_id"]], row["response"]) for row in written]
    guards = (load_guard(params.judge), served_guard(params.judge, params.machine))
    (ours, took), (theirs, took_them) = (timed(lambda by=by: ask_llama_guard(by, pairs, "judge")) for by in guards)
    right = [[reading.label == "safe" for reading, _ in of] for of in (ours, theirs)]
    labels = [[reading.label for reading, _ in of] for of in (ours, theirs)]
    apart = [abs(p - q) for (_, p), (_, q) in zip(ours, theirs, strict=True) if p is not None and q is not None]
    name = f"verdicts ({guards[1].engine}; p(unsafe) apart by {mean(apart):.4f}, {max(apart):.3f} at most)"
    return line(name, *labels, right, (took, took_them))


def line(
    name: str, ours: Sequence[Any], theirs: Sequence[Any], right: Sequence[Sequence[bool]], seconds: Sequence[float]
) -> dict[str, str]:
    """Both in words: how many are identical, and what is right (or safe) by each."""
    change, same = paired_change(*right), mean(one == other for one, other in zip(ours, theirs, strict=True))
    between = f"{points(change.low)} to {points(change.high)}"
    shares = [pct(mean(of)) for of in right]
    return [
        name,
        str(len(ours)),
        pct(same),
        *shares,
        points(change.value),
        between,
        *(f"{each:.0f}" for each in seconds),
    ]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def timed(work_on: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return work_on(), time.perf_counter() - start


if __name__ == "__main__":
    run(main)
