"""The benchmark against the fastest engines: its files of work, its arithmetic and tables, and what it runs."""

import json
import subprocess
import sys

import pytest

from bench import engines, peers, vllm_peer, work
from stages.lib.base.errors import BadInput
from stages.lib.base.model_files import SMALLEST
from tests.conftest import ARCHITECTURES, ROOT

ASKED = vllm_peer.Asked("vllm", "/model", None, "bfloat16", ["one", "two"], [[1, 2], [3]], 8, [0, 2], "<|im_end|>", 20)
ANSWERED = vllm_peer.Answered(1.5, ["yes", "no"], [{"7": -0.1}, {"8": -0.2}], {"vllm": "0.32.0"})
PAIR = {"model": SMALLEST, "adapter": False, "work": "judging", "peer": "vllm", "prompts": 64}
PAIR |= {"ours": [0.1, 0.2], "theirs": [0.3, 0.2], "alike": 0.875}
FLOOR = {"model": SMALLEST, "adapter": False, "work": "judging", "prompts": 64, "gflop": [20.0, 9.0]}
FLOOR |= {"gflop_per_second": [1000.0, 450.0]}


def test_a_file_of_work_and_one_of_answers_come_back_as_they_were_written(tmp_path):
    file = tmp_path / "work.json"
    vllm_peer.write(file, ASKED)
    vllm_peer.write(vllm_peer.answers_file(file), ANSWERED)
    assert vllm_peer.read_asked(file) == ASKED
    assert vllm_peer.read_answered(tmp_path / "work.answers.json", 2) == ANSWERED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["work.answers.json", "work.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"way": "sglang"}, "way: found 'sglang'; expected one of vllm, lm_eval"),
        ({"ids": [[1]]}, "found 2 prompts and 1 lists of tokens"),
        ({"prompts": [], "ids": []}, "found 0 prompts"),
        ({"beam": 4}, "no Asked as bench/vllm_peer.py has it"),
    ],
)
def test_a_file_that_is_no_work_is_refused_by_what_is_wrong_in_it(tmp_path, change, said):
    file = tmp_path / "work.json"
    file.write_text(json.dumps({**vars(ASKED), **change}))
    with pytest.raises(BadInput, match=said) as error:
        vllm_peer.read_asked(file)
    assert str(file) in str(error.value)


def test_answers_to_other_prompts_are_refused(tmp_path):
    vllm_peer.write(tmp_path / "answers.json", ANSWERED)
    with pytest.raises(BadInput, match="found 2 answers; expected 3"):
        vllm_peer.read_answered(tmp_path / "answers.json", 3)


def test_the_program_of_the_other_environment_refuses_a_missing_file(tmp_path):
    command = [sys.executable, "-m", "bench.vllm_peer"]
    done = subprocess.run(command, cwd=ROOT, input=f"{tmp_path}/work.json\n", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/work.json: cannot be read (No such file or directory)" in done.stderr


def test_without_the_environment_vllm_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("AFTERTUNE_VLLM", str(tmp_path / "python"))
    with pytest.raises(BadInput, match="make bench"), engines.opened(engines.VLLM, SMALLEST, None, None, None, {}):
        pass


def test_ratios_are_of_the_same_round():
    assert engines.ratios(PAIR) == [pytest.approx(3), pytest.approx(1)]
    assert engines.spread(engines.ratios(PAIR), 1) == "2.0 (1.0 to 3.0)"


def test_answers_are_alike_up_to_where_they_part():
    assert engines.alike(["abcd", "", "x "], ["abxxxxxx", "", "x"]) == pytest.approx((2 / 8 + 1 + 1) / 3)
    assert engines.alike(["a"], [""]) == 0


def test_the_tables_have_a_row_for_each_pair_and_each_floor():
    found = {"pairs": [PAIR, PAIR | {"peer": "generate_batch", "prompts": 8, "ours": [9.0, 9.0]}], "floors": [FLOOR]}
    first = engines.table(found).splitlines()[2]
    assert first == (
        "| smollm2-135m | off | judging | vllm | 64 | 0.150 (0.100 to 0.200) | 0.250 (0.200 to 0.300) "
        "| 2.00 (1.00 to 3.00) | 88% |"
    )
    *_, least = engines.floors(found).splitlines()  # ours on eight prompts is no part of it
    assert least == "| smollm2-135m | off | judging | 64 | 29.0 | 1000, 450 | 0.0400 | 27% | 16% |"
    assert engines.floors(found | {"pairs": []}).splitlines()[-1].endswith("| not run | not run |")


@pytest.mark.parametrize(
    ("load", "said"), [(0.1, "0.1, nothing ran beside it"), (2.34, "2.3, other work ran beside it")]
)
def test_a_run_on_a_loaded_machine_says_so(load, said):
    machine = {"processor": "A processor (amx_bf16)", "cores": "2", "torch": "2.13.0", "transformers": "5.23.0"}
    found = {"machine": machine, "vllm": {"vllm": "0.32.0", "torch": "another"}, "load": load}
    assert engines.heading(found) == (
        f"A processor (amx_bf16), 2 cores, torch 2.13.0, transformers 5.23.0, vllm 0.32.0; load before: {said}."
    )


def test_a_floor_takes_the_best_rates_of_its_model_in_the_run():
    others = [FLOOR | {"work": "math", "gflop_per_second": [2000.0, 300.0]}]
    others.append(FLOOR | {"prompts": 256, "gflop_per_second": [1.0, 9000.0]})  # more rows at once
    others.append(FLOOR | {"model": "larger", "gflop_per_second": [9000.0, 9000.0]})
    first = engines.floors({"pairs": [], "floors": [FLOOR, *others]}).splitlines()[2]
    assert "| 2000, 450 | 0.0300 |" in first


def test_the_tables_shown_are_those_of_the_committed_runs():
    if not engines.RESULTS.is_file():
        pytest.skip("no run of bench.engines is committed yet")
    text = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    runs = json.loads(engines.RESULTS.read_text(encoding="utf-8"))
    for found in runs.values():
        assert engines.heading(found) in text
        assert engines.table(found) in text
        assert engines.floors(found) in text


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_floor_is_that_of_the_models_own_matrices(tiny_models, architecture):
    from stages.lib.model.models import load_base
    from stages.lib.model.sources import Source

    model = load_base(Source(str(tiny_models[architecture]), None), "none", "float32")
    layers = model.config.num_hidden_layers
    own = [tuple(weight.shape) for name, weight in model.named_parameters() if name.endswith("_proj.weight")]
    assert sorted(work.layer_shapes(model.config) * layers) == sorted(own)
    ids, new = [[1, 2, 3] + [n] * 200 for n in (4, 5)], [200, 100]
    least = work.floor(model.config, ids, new, 16)
    flop = work.flops(model.config, ids, new)
    rates = least["gflop_per_second"].values()
    seconds = sum(each / rate / 1e9 for each, rate in zip(flop, rates, strict=True)) / 2
    assert least["seconds_per_prompt"] == pytest.approx(seconds, abs=1e-3)
    assert least["tokens"] == {"shared": 3, "then": 200.0, "new": 150.0}


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True])
def test_every_work_is_done_by_ours_and_by_transformers_in_pairs(adapter):
    found = {"pairs": [], "floors": [], "left_out": {}, "vllm": {}}
    engines.measure(SMALLEST, adapter, [4], 1, [engines.CONTINUOUS], found)
    assert found["left_out"] == {}
    assert [(pair["work"], pair["adapter"]) for pair in found["pairs"]] == [(name, adapter) for name in engines.WORKS]
    assert all(pair["alike"] > 0.3 and pair["ours"][0] > 0 for pair in found["pairs"])
    assert [least["gflop"][1] == 0 for least in found["floors"]] == [False, False, True]  # a verdict is no new token
    assert all(min(least["gflop_per_second"]) > 1 for least in found["floors"])


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("peer", [engines.VLLM, engines.OVER_VLLM])
def test_vllm_in_its_own_environment_answers_as_ours_does(peer, adapter):
    if not peers.vllm_python():
        pytest.skip("vLLM's environment is not there: `make bench` makes it, $AFTERTUNE_VLLM names another")
    found = {"pairs": [], "floors": [], "left_out": {}, "vllm": {}}
    engines.measure(SMALLEST, adapter, [4], 1, [peer], found)
    assert found["left_out"] == {}
    assert found["vllm"]["vllm"] != "not installed"
    assert all(pair["alike"] > 0.3 for pair in found["pairs"])
