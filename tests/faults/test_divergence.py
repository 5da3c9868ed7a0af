"""A training that breaks down stops and says where; a model that writes rubbish is not measured as safe."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Answer, Problem, Prompt, Verdict, read_jsonl, write_jsonl
from stages.lib.model.models import load_base
from stages.lib.model.sources import find, load_tokenizer
from stages.lib.train.checkpoints import by_step
from stages.lib.train.encoding import encode
from stages.lib.train.training import add_lora, train
from tests.conftest import params_values, write_params
from tests.faults.conftest import Stages
from tests.faults.test_kills import SMALL

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SUMS_OF_TWO = [
    Problem(id=f"{n}", question=f"What is {n} and {n}?", answer=f"{n}+{n}={2 * n}\n#### {2 * n}", gold=f"{2 * n}")
    for n in range(2, 18)
]


def test_a_loss_that_explodes_stops_training_and_names_the_last_good_checkpoint(tmp_path, monkeypatch, record_property):
    """The embedded model: a random one predicts nothing that it could lose."""
    monkeypatch.setattr("stages.lib.train.checkpoints.SHARE", 1e9)
    changes = {"finetune__learning_rate": 1.0, "finetune__batch_size": 2, "finetune__warmup_ratio": 0.5}
    params = parse_params(params_values(**changes), "params.yaml")
    source = find("embedded/smollm2-135m", None)
    tokenizer = load_tokenizer(source)
    rows = [encode(tokenizer, row, [], "answer") for row in SUMS_OF_TWO]
    model = add_lora(load_base(source, "none", "bfloat16"), params.lora, 5, "embedded", None)
    with pytest.raises(BadInput, match=r"training broke down at update \d of 8: loss") as stopped:
        train(model, rows, params.finetune, True, tmp_path)
    message = str(stopped.value)
    last = by_step(tmp_path)[0]
    assert f"The last good checkpoint is {last}" in message
    step = int(last.name.rpartition("-")[2])
    assert f"broke down at update {step + 1} " in message
    weights = load_file(last / "adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    record_property("tried", "finetune with a learning rate of 1.0, reached by warm-up")
    record_property("outcome", message.replace(str(tmp_path), ".ckpt/…")[:160])


def test_a_model_that_computes_nan_is_neither_trained_nor_asked(stages: Stages, whole, tmp_path, record_property):
    folder = tmp_path / "nan"
    shutil.copytree(whole.folder, folder)
    weights = load_file(folder / "tiny/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(weights, folder / "tiny/model.safetensors", metadata={"format": "pt"})
    said = stages.run(folder, "finetune")
    assert said.code == 1
    assert "training broke down at update 1 of 8: loss nan" in said.stderr
    assert "none, it broke too soon" in said.stderr
    for stage in ("gen_math", "gen_safety"):
        asked = stages.run(folder, stage, "base")
        assert (asked.code, "the model computes nan instead of a next token" in asked.stderr) == (1, True), asked.stderr
    record_property("tried", "a base model with one weight that is nan")
    record_property("outcome", "finetune stops at update 1, generation at the first token, each with one message")


DEGENERATE = ["", "   ", "!" * 300, "the " * 90, "\n\n"]


@pytest.mark.parametrize("protocol", ["refusal_rule", "qwen3guard"])
def test_degenerate_responses_are_counted_and_flagged_not_safe(stages, whole, tmp_path, protocol, record_property):
    folder = tmp_path / "degenerate"
    shutil.copytree(whole.folder, folder)
    model = None if protocol == "refusal_rule" else "./tiny"
    write_params(folder, **{**SMALL, "judge__protocol": protocol, "judge__model": model})
    generated = folder / "data/generated/tuned"
    responses = read_jsonl(generated / "safety.jsonl", Answer)
    written = [
        row.model_copy(update={"text": DEGENERATE[n % 5], "finish": "length"}) for n, row in enumerate(responses)
    ]
    write_jsonl(generated / "safety.jsonl", written)
    answers = read_jsonl(generated / "math.jsonl", Answer)
    loops = [row.model_copy(update={"text": "1 + " * 99, "finish": "length"}) for row in answers]
    write_jsonl(generated / "math.jsonl", loops)
    for stage in (("judge", "base"), ("judge", "tuned"), ("report",)):
        done = stages.run(folder, *stage)
        assert done.code == 0, done.stderr
    hazards = {prompt.id for prompt in read_jsonl(folder / "data/prepared/hazards.jsonl", Prompt)}
    labels = [row.label for row in read_jsonl(generated / "verdicts.jsonl", Verdict) if row.id in hazards]
    assert set(labels) == {"empty", "degenerate"}
    assert json.loads((folder / "metrics/headline.json").read_text())["safety"]["tuned"] == 0.0
    tuned_row = json.loads((folder / "metrics/detail.json").read_text())["problems"][1]
    assert tuned_row["degenerate"] == pytest.approx(0.4, abs=0.02)
    text = (folder / "report/report.md").read_text()
    assert "of the tuned model's responses are degenerate: one token or word, over and over." in text
    assert "**Doubtful:** 100.0% of the tuned model's math answers are degenerate" in text
    assert "All of the tuned model's math answers are cut off at gen_math.max_new_tokens" in text
    assert "of the untuned model's responses are degenerate" not in text
    record_property("tried", f"responses that are empty or one token over and over, judged by {protocol}")
    record_property("outcome", "labelled empty or degenerate, counted, flagged at the top of the report, safety 0 %")
