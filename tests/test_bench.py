"""The benchmark's own arithmetic and tables; its GPU script on a small model of the same architecture, on the CPU."""

import json

import pytest
import torch

from bench import gpu, paper_cost, scale, speed, work
from stages.lib.model.models import load_base, load_for_generation
from stages.lib.model.sources import Source, load_tokenizer
from tests.conftest import ARCHITECTURES, ROOT

RESULTS = ROOT / "bench" / "results.json"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_operations_are_counted_as_torch_counts_them(tiny_models, architecture):
    from torch.utils.flop_counter import FlopCounterMode

    model = load_base(Source(str(tiny_models[architecture]), None), "none", "float32")
    model.set_attn_implementation("eager")
    linear = sum(weight.numel() for name, weight in model.named_parameters() if name.endswith("_proj.weight"))
    assert work.linear_weights(model.config) == linear
    # two prompts of 20 tokens, 12 of them shared, one new token each: what one pass of each prompt would take, but for
    # the shared part, which counts once, and for what causality hides (torch counts the whole square)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(20)[None], logits_to_keep=1)
    whole = counter.get_total_flops()
    ids = [list(range(12)) + [90 + n] * 8 for n in range(2)]
    read, written = work.flops(model.config, ids, [1, 1])
    per_key = 4 * model.config.num_hidden_layers * model.config.hidden_size
    hidden = per_key * (20 * 20 - 20 * 21 // 2)
    once_less = 12 * 2 * linear + per_key * 12 * 13 // 2
    assert read == 2 * (whole - hidden) - once_less
    assert written == 0
    assert work.flops(model.config, ids, [3, 1])[1] == 2 * (2 * linear + 2 * 49152 * 64) + per_key * (21 + 22)


def test_the_tables_shown_are_those_of_the_committed_results():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert speed.table(results) in text
    assert speed.training_table(results) in text
    assert paper_cost.table(results) in (ROOT / "docs" / "RUNNING.md").read_text(encoding="utf-8")


def test_the_document_of_scale_is_that_of_the_committed_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert scale.document() == (ROOT / "docs" / "SCALE.md").read_text(encoding="utf-8")


def test_the_study_waits_for_what_all_share_then_for_its_runs():
    found = [(5, scale.Hours(3, 1, 1)), (5, scale.Hours(2, 1, 1)), (0, scale.Hours(1, 2, 1))]
    assert scale.untuned(found) == 1 + 2 + 1  # math with five shots, with none, safety
    assert scale.makespan(found, at_once=1) == 4 + 5 + 4 + 4
    assert scale.makespan(found, at_once=2) == 4 + 4 + 4  # the third run follows the second
    assert scale.makespan(found, at_once=64) == 4 + 5


def test_more_gpus_share_a_run_but_not_its_examples_nor_half_a_batch(monkeypatch):
    monkeypatch.chdir(ROOT)
    one, two, four = (dict(enumerate(scale.runs(scale.MODELS["7B"], gpus))) for gpus in (1, 2, 4))
    for number, (shots, hours) in one.items():
        faster = hours.training / four[number][1].training
        assert faster == pytest.approx(4) if not shots else 1 < faster < 2.5
        assert hours.math / two[number][1].math == pytest.approx(5 / 3)  # five batches
        assert hours.math / four[number][1].math == pytest.approx(5 / 2)


def test_shapes_are_those_of_the_models():
    # config.json of Qwen2.5-1.5B and 7B, whose linear weights the other table gives
    small = scale._shape(layers=28, hidden=1536, inner=8960, kv_heads=2, vocabulary=151936)
    large = scale._shape(layers=28, hidden=3584, inner=18944, kv_heads=4, vocabulary=152064)
    for found, size in ((small, "1.5B"), (large, "7B")):
        assert found.linear == pytest.approx(paper_cost.SHAPES[size].linear, rel=0.01)
        assert found.output == pytest.approx(paper_cost.SHAPES[size].output, rel=0.01)
        assert found.attention == paper_cost.SHAPES[size].attention
    assert scale.MODELS["72B"].weights == pytest.approx(72.7e9, rel=0.01)


def test_more_rows_more_epochs_and_larger_models_cost_more():
    shapes = paper_cost.SHAPES
    small, large = (paper_cost.trained(shapes[size], 750, 150, 2491, whole_text=True) for size in ("1.5B", "7B"))
    assert large > 4 * small
    assert paper_cost.trained(shapes["7B"], 750, 150, 4982, whole_text=True) == pytest.approx(2 * large)
    assert paper_cost.trained(shapes["7B"], 0, 150, 2491, whole_text=True) < large / 2


@pytest.mark.slow
def test_the_gpu_script_measures_a_small_model(tiny_models):
    source = Source(str(tiny_models["qwen2"]), None)
    tokenizer = load_tokenizer(source)
    model = load_for_generation(source, "nf4", "bfloat16")
    found = gpu.generation(model, tokenizer, slots=3, limit=5, bandwidth=1e10, rate=1e11)
    assert found["prompts"] == 6
    assert found["tokens_per_second"] > 0
    assert 0 < found["share_of_matrix_rate"] < 1
    trained = gpu.trainings(source, tokenizer, 8)
    assert set(trained) == {"packed", "row by row"}
    assert all(way["seconds_per_row"] > 0 for way in trained.values())
