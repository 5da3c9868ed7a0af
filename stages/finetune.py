"""finetune: data/prepared/{train,shots,replay}.jsonl → models/tuned/ (adapter or full weights) and metrics/loss.csv.

    python -m stages.finetune

LoRA on a frozen base model, 4-bit NF4 if model.quantization says so; lora.enabled: false tunes all weights. Costs about
half a second per 100 tokens of training text for the default model on two CPU cores with AMX, two seconds without, and
4.3 GiB of memory; examples are computed once per update. Killed at any moment, the same command goes on from
the last checkpoint. What the untuned model is asked before (docs/FORGETTING.md) is kept for later trainings, too, and
what came of it is in models/tuned/training.json. With tuned.model nothing is trained: what was tuned elsewhere is
checked against the base model and taken as it is.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from stages.lib.base.card import ELSEWHERE, model_card
from stages.lib.base.cli import no_arguments, run
from stages.lib.base.files import rounded, sha256_file, write_json, write_sums, write_text
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import load_params
from stages.lib.base.processes import is_first
from stages.lib.base.rows import Problem, Prompt
from stages.lib.base.sections import Model, Tuned
from stages.lib.model.opening import Task, begin, work_on

TUNED = Path("models/tuned")


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    if params.tuned.model:
        take(params.model, params.tuned)
        return
    model, lora, settings = params.model, params.lora, params.finetune
    own = params.data.solutions != "published"
    task = Task(
        name="finetune",
        params={
            "model": model,
            "lora": lora.model_copy(update={"strength": 1.0}),
            "fewshot": params.fewshot,
            "finetune": settings,
            **({"data": params.data} if own else {}),
        },
        files={
            PREPARED / "train.jsonl": Problem,
            PREPARED / "shots.jsonl": Problem,
            **({PREPARED / "replay.jsonl": Prompt} if settings.replay else {}),
        },
        model=model.name,
    )
    rows, pool, *rest = begin(task, params.machine.processes)
    shots, system = pool[: params.fewshot.shots], params.fewshot.system.training

    from stages.lib.model import device, models, sources

    device.quiet()
    from stages.lib.base.cost import write_cost
    from stages.lib.train import training
    from stages.lib.train.encoding import encode

    source = sources.find(model.name, model.revision)
    tokenizer = sources.load_chat_tokenizer(source)
    if own or settings.asks_untuned:
        from stages.lib.train import material

        with work_on(Task("untuned", {"model": model}, {}, model.name, lasting=True)) as keep:
            untuned = models.load_for_generation(source, model.quantization, model.dtype)
            asked = material.Engine(untuned, tokenizer, material.BATCH, keep)
            made = material.with_a_say(asked, rows, shots, rest[0] if rest else [], params.data, settings, system)
            encoded, replayed, found = made.rows, made.replayed, made.found
            del untuned, asked
    else:
        encoded, replayed, found = [encode(tokenizer, row, shots, settings.loss, system=system) for row in rows], [], {}
    with work_on(task) as keep:
        # full-parameter tuning keeps its master weights in float32; 16-bit ones lose small updates
        base = models.load_base(source, model.quantization, model.dtype if lora.enabled else "float32")
        tuned = training.add_lora(base, lora, settings.seed, model.name, model.revision) if lora.enabled else base
        start = time.perf_counter()
        steps = training.train(tuned, encoded, settings, model.dtype == "bfloat16", keep, replayed)
        seconds = time.perf_counter() - start
        if not is_first():
            return

        part = fresh_part()
        training.save(tuned, tokenizer, part, model.dtype)
        kind = "adapter" if lora.enabled else "whole"
        used = {"system": {"testing"}, "strength": True}  # when the model is used, of which this stage knows nothing
        settled = {name: section.model_dump(exclude=used) for name, section in task.params.items()}
        trained_on = ("train", "shots", *(("replay",) if replayed else ()))
        if found:
            write_json(part / "training.json", rounded(found))
        finish(part, model_card(kind, model, trained_on, settled), steps)
        tokens = round(sum(len(row["input_ids"]) for row in [*encoded, *replayed]) * settings.epochs)
        write_cost("finetune", seconds, len(encoded) + len(replayed), tokens)
    print(
        f"finetune: {len(encoded) + len(replayed)} rows, {len(steps)} updates, "
        f"loss {steps[0]['loss']:.3f} to {steps[-1]['loss']:.3f}, {seconds:.0f} s ({tokens / seconds:.0f} tokens/s)"
        + "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in found.items())
    )


def take(model: Model, tuned: Tuned) -> None:
    """What was tuned elsewhere, checked against the base model (BadInput), with a card that says what was found."""
    start = time.perf_counter()

    from stages.lib.base.cost import write_cost
    from stages.lib.model import device, elsewhere, sources

    device.quiet()
    taken = elsewhere.check_elsewhere(tuned.model, tuned.revision, sources.find(model.name, model.revision), model)
    part = fresh_part()
    part.mkdir(parents=True)
    for file in taken.files:
        shutil.copyfile(file, part / file.name)
    if taken.kind == "adapter":  # the base model by the name that it has here, which the next stages ask for
        named = {"base_model_name_or_path": model.name, "revision": model.revision}
        write_json(part / "adapter_config.json", {**taken.settings, **named})
    found = [*taken.found, *(f"{file.name}: sha256 {sha256_file(file)}." for file in taken.files)]
    write_json(part / ELSEWHERE, found)
    settled = {"model": model.model_dump(), "tuned": tuned.model_dump()}
    finish(part, model_card(taken.kind, model, (), settled, elsewhere=found), [])
    write_cost("finetune", time.perf_counter() - start, 0, None)
    print(f"finetune: nothing is trained, {tuned.model} is taken as it is. {' '.join(taken.found)}")


def fresh_part() -> Path:
    """The folder beside models/tuned in which it is made; not there yet."""
    part = TUNED.with_name(".tuned.part")
    shutil.rmtree(part, ignore_errors=True)
    return part


def finish(part: Path, card: str, steps: Sequence[Mapping[str, float]]) -> None:
    """Give the tuned model its card and hashes and its place, and write its loss curve."""
    write_text(part / "README.md", card)
    write_sums(part)
    shutil.rmtree(TUNED, ignore_errors=True)
    part.replace(TUNED)
    header = "step,epoch,loss,learning_rate\n"
    lines = [f"{s['step']},{s['epoch']:.4f},{s['loss']:.6f},{s['learning_rate']:.3e}\n" for s in steps]
    write_text(Path("metrics/loss.csv"), header + "".join(lines))


if __name__ == "__main__":
    run(main)
