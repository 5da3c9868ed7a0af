"""params.yaml: what is accepted arrives with the right type, what is not is refused with file, line and field."""

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.base.errors import BadInput
from stages.lib.base.params import load_params, parse_params
from stages.lib.base.sections import started_from
from tests.conftest import ROOT, params_values


def refused(**changes) -> str:
    with pytest.raises(BadInput) as error:
        parse_params(params_values(**changes), "params.yaml")
    return str(error.value)


def test_the_repositorys_params_are_valid():
    load_params(ROOT / "params.yaml")


@pytest.mark.parametrize("written", ["3e-5", "3e-05", "0.00003", "'3e-5'", "3.0E-5"])
def test_numbers_arrive_as_numbers_however_written(tmp_path, written):
    text = (ROOT / "params.yaml").read_text().replace("learning_rate: 2e-4", f"learning_rate: {written}")
    assert written in text
    (tmp_path / "params.yaml").write_text(text)
    rate = load_params(tmp_path / "params.yaml").finetune.learning_rate
    assert isinstance(rate, float)
    assert math.isclose(rate, 3e-5)


BAD = [
    ({"lora__r": 0}, "lora.r: found 0"),
    ({"lora__r": -8}, "lora.r: found -8"),
    ({"lora__r": "abc"}, "lora.r: found 'abc'"),
    ({"lora__r": 8.5}, "lora.r: found 8.5"),
    ({"lora__r": True}, "lora.r: found True"),
    ({"lora__rr": 16}, "lora.rr: unknown key"),
    ({"lora__dropout": 1.1}, "lora.dropout: found 1.1"),
    ({"lora__dropout": -0.1}, "lora.dropout"),
    ({"lora__alpha": 0}, "lora.alpha"),
    ({"lora__enabled": "yes"}, "lora.enabled: found 'yes'"),
    ({"lora__target_modules": []}, "lora.target_modules"),
    ({"lora__target_modules": "q_proj"}, "lora.target_modules"),
    ({"finetune__learning_rate": float("nan")}, "finetune.learning_rate: found nan"),
    ({"finetune__learning_rate": float("inf")}, "finetune.learning_rate"),
    ({"finetune__learning_rate": 0}, "finetune.learning_rate"),
    ({"finetune__learning_rate": True}, "finetune.learning_rate"),
    ({"finetune__learning_rate": "fast"}, "finetune.learning_rate: found 'fast'"),
    ({"finetune__warmup_ratio": 1}, "finetune.warmup_ratio"),
    ({"finetune__epochs": 0}, "finetune.epochs"),
    ({"finetune__schedule": "cosin"}, "finetune.schedule: found 'cosin'"),
    ({"finetune__loss": None}, "finetune.loss"),
    ({"fewshot__system__testing": 5}, "fewshot.system.testing: found 5"),
    ({"fewshot__system": "Be safe."}, "fewshot.system"),
    ({"lora__strength": 1.1}, "lora.strength: found 1.1"),
    ({"lora__strength": -0.1}, "lora.strength"),
    (
        {"lora__strength": 0.5, "lora__enabled": False, "model__quantization": "none"},
        "so set lora.strength to 1",
    ),
    ({"generate__engine": "vllm"}, "generate.engine: found 'vllm'"),
    ({"generate__engine": "server", "lora__strength": 0.5}, "a server (generate.engine) puts it on in whole"),
    ({"machine__requests": 0}, "machine.requests: found 0"),
    ({"machine__request_seconds": 0}, "machine.request_seconds: found 0"),
    ({"data__solutions": "mine"}, "data.solutions: found 'mine'"),
    ({"data__samples": 0}, "data.samples: found 0"),
    ({"data__unsolved": None}, "data.unsolved"),
    ({"finetune__replay": -1}, "finetune.replay: found -1"),
    ({"finetune__replay": 1.5}, "finetune.replay: found 1.5"),
    ({"finetune__replay_hazards": ""}, "finetune.replay_hazards"),
    ({"finetune__kl": -1}, "finetune.kl: found -1"),
    (
        {"finetune__kl": 1, "lora__enabled": False, "model__quantization": "none"},
        "has none, so set finetune.kl to 0",
    ),
    ({"finetune__mask_perplexity": 0.5}, "finetune.mask_perplexity: found 0.5"),
    ({"finetune__seed": -1}, "finetune.seed"),
    ({"fewshot__shots": 17}, "fewshot.shots: found 17"),
    ({"data__train_rows": "some"}, "expected 'all', 'shortest_third', so many of those"),
    ({"data__train_rows": "shortest_third/0"}, "or a number of rows from 1 up"),
    ({"data__test_rows": 0}, "data.test_rows: found 0"),
    ({"data__test_rows": True}, "data.test_rows"),
    ({"data__hazard_rows": "shortest_third"}, "data.hazard_rows"),
    ({"data__sha256__train": "abc"}, "data.sha256.train: found 'abc'"),
    ({"data__source": "web"}, "data.source: found 'web'"),
    ({"data__source": "hub"}, "needs gsm8k_revision and ailuminate_revision"),
    ({"data__gsm8k_revision": "main"}, "data.gsm8k_revision: found 'main'"),
    ({"data__files__train": "mine.jsonl"}, "read with source: file"),
    ({"model__name": "embedded/other"}, "no embedded model"),
    ({"model__name": "Qwen/Qwen2.5-1.5B-Instruct"}, "needs a revision"),
    ({"model__name": "qwen"}, "neither an embedded model"),
    ({"model__name": "a/../b"}, "neither an embedded model"),
    ({"model__revision": "a" * 40}, "takes no revision"),
    ({"model__name": "./m", "model__files": "models/base"}, "is 'models/base'; expected the same folder"),
    ({"model__name": "./m", "model__files": "models/base"}, "add -S model.files=./m"),
    ({"model__name": "./a b", "model__files": "./m"}, "add -S 'model.files=./a b'"),
    ({"model__name": "/m", "model__files": "./m"}, "add -S model.files=/m"),
    ({"judge__model": "../guard", "judge__files": "models/base"}, "add -S judge.files=../guard"),
    ({"judge__files": "models/base"}, "add -S judge.files=models/embedded/guard"),
    ({"tuned__model": "./m", "tuned__files": "models/base"}, "add -S tuned.files=./m"),
    ({"base__model": "./m", "base__files": "models/base"}, "add -S base.files=./m"),
    ({"tuned__model": "owner/name"}, "needs a revision"),
    ({"base__model": "qwen"}, "neither an embedded model"),
    ({"tuned__revision": "a" * 40}, "a revision, but no model that it is of"),
    ({"model__quantization": "int8"}, "model.quantization: found 'int8'"),
    ({"lora__enabled": False}, "set model.quantization to none"),
    ({"judge__model": None}, "needs judge.model"),
    ({"judge__protocol": "refusal_rule"}, "refusal_rule uses no model"),
    ({"judge__protocol": "qwen3guard"}, "embedded/guard speaks llama_guard_3, not qwen3guard: set judge.protocol to"),
    (
        {"judge__model": "Qwen/Qwen3Guard-Gen-0.6B", "judge__revision": "a" * 40},
        "Qwen/Qwen3Guard-Gen-0.6B speaks qwen3guard, not llama_guard_3",
    ),
    (
        {
            "judge__model": "meta-llama/Llama-Guard-3-8B",
            "judge__revision": "a" * 40,
            "judge__protocol": "qwen3guard",
        },
        "speaks llama_guard_3, not qwen3guard",
    ),
    ({"judge__max_unparsed": 3}, "judge.max_unparsed"),
    ({"report__extraction": "loose"}, "report.extraction"),
    ({"gen_math__max_new_tokens": 0}, "gen_math.max_new_tokens"),
    ({"gen_math__batch_size": "32"}, "gen_math.batch_size: found '32'"),
    ({"lora": None}, "lora"),
    ({"lora": [1]}, "lora"),
    ({"extra": 1}, "extra: unknown key"),
]


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_bad_values_are_refused_by_name(changes, expected):
    assert expected in refused(**changes)


def test_a_folder_is_the_same_folder_however_it_is_written_and_other_models_need_none():
    for files in ("./m", "m", "./x/../m/", "m/."):
        assert parse_params(params_values(model__name="./m", model__files=files), "params.yaml").model.files == files
    parse_params(params_values(model__files="./m"), "params.yaml")
    guard = {"judge__protocol": "qwen3guard", "judge__model": "owner/name", "judge__revision": "a" * 40}
    parse_params(params_values(**guard, judge__files="./m"), "params.yaml")


def test_params_of_a_commit_that_had_no_such_field_are_read():
    values = params_values(model__name="./m", judge__model="./m")
    del values["model"]["files"], values["judge"]["files"]
    assert parse_params(values, "params.yaml").model.name == "./m"


def test_only_the_untuned_model_is_another_where_one_is_named_to_compare_with():
    params = parse_params(params_values(base__model="./before"), "params.yaml")
    assert started_from("base", params.model, params.base).name == "./before"
    assert started_from("tuned", params.model, params.base) == params.model
    params = parse_params(params_values(), "params.yaml")
    assert started_from("base", params.model, params.base) == params.model


def test_a_strength_and_a_divergence_are_refused_of_a_full_tuning_here_and_of_no_other():
    whole = {"lora__enabled": False, "model__quantization": "none"}
    for changes in ({"lora__strength": 0.5}, {"finetune__kl": 0.5}):
        with pytest.raises(BadInput, match="full-parameter tuning"):
            parse_params(params_values(**whole, **changes), "params.yaml")
        parse_params(params_values(**whole, **changes, tuned__model="./mine", tuned__files="./mine"), "params.yaml")


def test_a_judge_of_ones_own_may_speak_any_protocol():
    for protocol in ("llama_guard_3", "qwen3guard"):
        changes = {"judge__model": "./llama-guard", "judge__protocol": protocol}
        assert parse_params(params_values(**changes), "params.yaml").judge.protocol == protocol


def test_a_missing_key_is_named():
    values = params_values()
    del values["lora"]["alpha"]
    with pytest.raises(BadInput, match=r"lora\.alpha: missing"):
        parse_params(values, "params.yaml")


def test_the_message_names_the_line_and_all_problems_at_once(tmp_path):
    text = (ROOT / "params.yaml").read_text().replace("  r: 8", "  r: 0").replace("  shots: 0", "  shots: none")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    line = text.splitlines().index("  r: 0") + 1
    with pytest.raises(BadInput) as error:
        load_params(path)
    assert f"{path}:{line}: lora.r: found 0" in str(error.value)
    assert "fewshot.shots: found 'none'" in str(error.value)


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"a: b: c", b"\xff\xfe", b"a: 1\na: 2", b"x: !!python/name:os.system"]
)
def test_files_that_are_no_params_are_refused(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4))
def test_any_value_for_a_rank_is_a_rank_or_refused(value):
    try:
        rank = parse_params(params_values(lora__r=value), "params.yaml").lora.r
    except BadInput:
        return
    assert isinstance(rank, int)
    assert 1 <= rank <= 1024


def test_a_bad_parameter_is_refused_before_torch_is_loaded(workspace):
    from tests.conftest import write_params

    write_params(workspace, lora__r=0)
    code = "import sys, runpy; sys.argv = ['finetune']\ntry: runpy.run_module('stages.finetune', run_name='__main__')\n"
    code += "finally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (1, "False\n")
    assert "lora.r: found 0" in done.stderr
    assert "Traceback" not in done.stderr
