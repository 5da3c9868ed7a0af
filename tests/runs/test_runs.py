"""The ten runs resolve to the paper's Table 2, read from docs/STUDY.md; a run is recognized by its parameters."""

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise

import pytest
from ruamel.yaml import YAML

from stages.lib.base.errors import BadInput
from stages.lib.base.params import load_params, parse_params
from stages.lib.measure.stats import Estimate, Paired, share_of
from stages.lib.report import charts
from stages.lib.report.published import load_study, matching_runs, override, resolve
from stages.lib.report.tables import published_tables
from tests.conftest import ROOT, params_values, write_params
from tools.runs.command import compared, points
from tools.runs.experiments import Result
from tools.runs.overrides import with_overrides

COLUMNS = (
    "run",
    "size",
    "r/alpha",
    "epochs",
    "shots",
    "dropout",
    "lr",
    "warm-up",
    "decay",
    "tokens",
    "accuracy",
    "safety",
)
NAMES = [f"run{n:02d}" for n in range(1, 11)]


def table_2() -> dict[str, dict[str, str]]:
    """The table of the ten runs in docs/STUDY.md: one row of strings per run."""
    lines = (ROOT / "docs" / "STUDY.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| run | model | r/alpha |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : start + 2 + len(NAMES)]]
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in rows}


def shown(run: str, profile: str) -> dict:
    command = [sys.executable, "-m", "tools.runs", "show", run, "--profile", profile, "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def hyperparameters(values: dict) -> dict[str, float]:
    tune = values["finetune"]
    return {
        "r/alpha": f"{values['lora']['r']}/{values['lora']['alpha']:g}",
        "epochs": tune["epochs"],
        "shots": values["fewshot"]["shots"],
        "dropout": values["lora"]["dropout"],
        "lr": tune["learning_rate"],
        "warm-up": tune["warmup_ratio"],
        "decay": tune["weight_decay"],
        "tokens": values["gen_math"]["max_new_tokens"],
    }


def as_written(row: dict[str, str]) -> dict[str, float]:
    names = hyperparameters(params_values())
    return {name: row[name] if name == "r/alpha" else float(row[name].replace("none", "0")) for name in names}


def test_the_study_holds_all_ten_runs():
    assert list(table_2()) == NAMES


@pytest.mark.parametrize("profile", ["embedded", "laptop", "paper"])
def test_every_run_resolves_to_table_2(profile):
    study, values = load_study(ROOT / "runs.yaml"), params_values()
    for name, row in table_2().items():
        run = study.run(name)
        resolved = resolve(values, study.overrides(run, profile), "runs.yaml")
        assert hyperparameters(resolved.model_dump()) == as_written(row), name
        assert (run.size, run.accuracy, run.safety) == (row["size"], float(row["accuracy"]), float(row["safety"]))
        if profile == "paper":
            assert resolved.model.name == f"Qwen/Qwen2.5-{row['size']}-Instruct"
            assert resolved.data.train_rows == "shortest_third"
        if profile == "laptop":
            assert resolved.model.name == "embedded/qwen2.5-coder-0.5b-instruct"
        if profile != "embedded":
            assert resolved.data.source == "hub"
            assert resolved.finetune.batch_size * resolved.finetune.accumulation == 4
        assert (resolved.model.quantization, resolved.finetune.schedule, resolved.finetune.seed) == (
            "nf4",
            "cosine",
            1126,
        )


@pytest.mark.parametrize(("run", "profile"), [("run04", "embedded"), ("run02", "paper")])
def test_show_prints_complete_parameters(run, profile):
    values = shown(run, profile)
    parse_params(values, "show")
    assert hyperparameters(values) == as_written(table_2()[run])
    assert list(values) == list(params_values())


def test_show_as_yaml_is_the_same_as_json():
    command = [sys.executable, "-m", "tools.runs", "show", "run07"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert YAML(typ="safe").load(text) == shown("run07", "embedded")


def test_list_shows_every_run_and_its_published_result():
    command = [sys.executable, "-m", "tools.runs", "list"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name, row in table_2().items():
        line = next(line for line in text.splitlines() if name in line)
        assert f"{row['accuracy']} / {row['safety']}" in line


@pytest.mark.parametrize("arguments", [["show", "run11"], ["show", "run01", "--profile", "big"], ["run", "run00"]])
def test_an_unknown_run_or_profile_is_one_message(arguments):
    done = subprocess.run([sys.executable, "-m", "tools.runs", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no ")
    assert "Traceback" not in done.stderr


def test_a_run_is_recognized_whatever_its_override_route_and_only_then():
    study = load_study(ROOT / "runs.yaml")
    run09 = resolve(params_values(), study.overrides(study.run("run09"), "embedded"), "runs.yaml")
    found = matching_runs(run09, study)
    assert ([run.name for run in found["embedded"]], found["paper"]) == (["run09"], [])
    measures = {"accuracy": pair(0.1, 0.2, 200), "safety": pair(0.3, 0.4, 140)}
    (table,) = published_tables(run09, study, measures)
    assert "run09" in table["intro"]
    assert table["rows"][0] == {"": "published, run09", "accuracy": "43.0%", "safety": "68.0%"}
    assert table["rows"][1]["accuracy"] == "20.0%"
    changed = run09.model_copy(update={"fewshot": run09.fewshot.model_copy(update={"shots": 4})})
    assert published_tables(changed, study, measures) == []


def test_own_files_are_none_of_the_ten_runs_and_do_not_stop_the_report():
    own = parse_params(params_values(data__source="file", data__files__train="/elsewhere/train.jsonl"), "params.yaml")
    assert matching_runs(own, load_study(ROOT / "runs.yaml")) == {"embedded": [], "laptop": [], "paper": []}


def test_run_1_and_6_differ_only_in_model_size_which_the_embedded_profile_does_not_have():
    study = load_study(ROOT / "runs.yaml")
    run01 = resolve(params_values(), study.overrides(study.run("run01"), "embedded"), "runs.yaml")
    assert [run.name for run in matching_runs(run01, study)["embedded"]] == ["run01", "run06"]


def test_other_parameters_are_laid_over_every_run_alike():
    study = with_overrides(load_study(ROOT / "runs.yaml"), ["data.train_rows=shortest_third/64", "lora.r=4"])
    for each in study.runs:
        resolved = resolve(params_values(), study.overrides(each, "laptop"), "runs.yaml")
        assert (resolved.data.train_rows, resolved.lora.r) == ("shortest_third/64", 4)
    with pytest.raises(BadInput, match=r"-S lora\.r: expected a parameter and its value"):
        with_overrides(study, ["lora.r"])


def test_broken_runs_files_are_refused(tmp_path):
    text = (ROOT / "runs.yaml").read_text()
    for old, new in (
        ("    size: 7B\n", ""),
        ("runs:", "rums:"),
        ("  paper:", "  papers: 3\n  paper:"),
        ("size: 7B", "size: 70B"),
    ):
        (tmp_path / "runs.yaml").write_text(text.replace(old, new, 1))
        with pytest.raises(BadInput, match=r"runs\.yaml"):
            load_study(tmp_path / "runs.yaml")
    with pytest.raises(BadInput, match=r"lora\.rr: params\.yaml has no such parameter"):
        resolve(params_values(), {"lora.rr": 8}, "runs.yaml")


def test_overrides_survive_dvcs_grammar():
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = ["Qwen/Qwen2.5-1.5B-Instruct", "12e34", None, 3e-5, 8, False, ["q_proj", "k_proj"], "all"]
    for value in values:
        parsed = OverridesParser.create().parse_override(override("a.b", value)).value()
        assert (parsed if not hasattr(parsed, "text") else parsed.text) == value or list(parsed) == value


def test_a_set_of_ones_own_is_added_and_left_out_by_dvcs_grammar(tmp_path):
    """What docs/PARAMETERS.md says, and what `-S` of our tools makes of it, by DVC's own code."""
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params.yaml"
    write_params(tmp_path)
    for override_of, sets in (
        ("+sets.arc=choice", {"arc": "choice"}),
        (override("sets.lies", "judged"), {"arc": "choice", "lies": "judged"}),
        (override("sets.arc", "text"), {"arc": "text", "lies": "judged"}),
        ("~sets.lies", {"arc": "text"}),
    ):
        apply_overrides(path, [override_of])
        assert load_params(path).sets == sets
    assert resolve(params_values(), {"sets.arc": "choice"}, "-S").sets == {"arc": "choice"}
    with pytest.raises(BadInput, match=r"sets\.arc: found 'essay'"):
        resolve(params_values(), {"sets.arc": "essay"}, "-S")


def pair(before: float, after: float, n: int) -> Paired:
    change = Estimate(after - before, after - before - 0.1, after - before + 0.1, 1.2e-7)
    return Paired(share_of(round(before * n), n), share_of(round(after * n), n), change)


def result(accuracy: tuple, safety: tuple, shots: int) -> Result:
    return Result({"fewshot": {"shots": shots}}, pair(*accuracy, 200), pair(*safety, 140), {})


def test_points_of_the_plane_are_shared_by_equal_results_and_carry_intervals():
    study = load_study(ROOT / "runs.yaml")
    run01, run02, run06 = (study.run(name) for name in ("run01", "run02", "run06"))
    same = result((0.1, 0.2), (0.9, 0.8), 5)
    rows = {
        each.label: each for each in points([(run01, same), (run02, result((0.05, 0.3), (0.9, 0.5), 0)), (run06, same)])
    }
    assert set(rows) == {"untuned, shots 5", "untuned, shots 0", "run 1, 6", "run 2"}
    tuned = rows["run 2"]
    assert (tuned.subject, tuned.accuracy, tuned.safety) == ("tuned", share_of(60, 200), share_of(70, 140))


def test_names_beside_the_plane_stand_apart_within_its_height():
    for values in ([0.5] * 12, [0.0, 0.01, 0.02], [0.97, 0.98, 0.99, 1.0], [0.2]):
        places = charts._apart(values, 0.05, 0, 1)
        assert all(later - earlier >= 0.05 - 1e-9 for earlier, later in pairwise(places))
        assert 0 <= places[0] <= places[-1] <= 1
    assert charts._apart([0.2, 0.5, 0.51], 0.05, 0, 1) == pytest.approx([0.2, 0.48, 0.53])


def test_every_point_and_threshold_of_the_plane_is_named_and_only_a_pair_is_joined():
    study = load_study(ROOT / "runs.yaml")
    accuracy, safety = pair(0.1, 0.3, 200), pair(0.9, 0.5, 140)
    two = [
        charts.Point("base", "base", accuracy.before, safety.before),
        charts.Point("tuned", "tuned", accuracy.after, safety.after),
    ]
    drawn = charts.plane(two, study.baselines, study.runs).to_dict()
    shown = [layer["data"]["values"] for layer in drawn["layer"] if layer["mark"]["type"] == "text"]
    names = [row["label"] for rows in shown for row in rows]
    assert sorted(names) == sorted([*["base", "tuned"], *study.baselines, *study.baselines, *map(str, range(1, 11))])
    assert "line" in [layer["mark"]["type"] for layer in drawn["layer"]]
    three = charts.plane([*two, charts.Point("tuned", "x" * 40, accuracy.after, safety.after)], study.baselines)
    assert "line" not in [layer["mark"]["type"] for layer in three.to_dict()["layer"]]


def test_no_name_beside_a_crowded_plane_stands_on_another():
    study = load_study(ROOT / "runs.yaml")
    crowd = [charts.Point("tuned", f"run {n}", share_of(60 + n % 3, 200), share_of(90, 140)) for n in range(11)]
    drawn = charts.plane(crowd, study.baselines).to_dict()
    rows = next(layer["data"]["values"] for layer in drawn["layer"] if "place" in layer["data"]["values"][0])
    low, high = next(layer["encoding"]["y"]["scale"]["domain"] for layer in drawn["layer"] if "y2" in layer["encoding"])
    heights = sorted(charts.HEIGHT * (row["place"] - low) / (high - low) for row in rows)
    assert len(heights) == 11 + 3
    assert all(later - earlier > 14.9 for earlier, later in pairwise(heights))


def test_a_comparison_shows_change_interval_and_p():
    assert compared(pair(0.9, 0.5, 200)) == "0.900 → 0.500 (-0.400, -0.500 to -0.300, p 1e-07)"


def test_results_are_a_table_and_a_picture(tmp_path):
    for name in ("tools", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "runs.yaml", tmp_path)
    folder = tmp_path / "metrics/runs/embedded"
    command = [sys.executable, "-m", "tools.runs", "results"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "no results there" in done.stderr) == (1, True)
    folder.mkdir(parents=True)
    head = {"accuracy": {"base": 0.1, "tuned": 0.2}, "safety": {"base": 0.9, "tuned": 0.5}}
    for values in head.values():
        values.update(change=0.1, change_low=0.0, change_high=0.2, p=0.5)
    head.update(over_refusal={"base": 0.1, "tuned": 0.0}, n={"math": 20, "hazards": 10})
    (folder / "run02.json").write_text(json.dumps({"headline": head, "params": {"fewshot": {"shots": 0}}}))
    text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "| run02 | 0.50 " in text
    assert (folder / "plane.png").read_bytes().startswith(b"\x89PNG")
    # on a terminal that has no arrow
    command[-1], ascii_only = "list", {**os.environ, "PYTHONIOENCODING": "ascii"}
    text = subprocess.run(command, cwd=tmp_path, env=ascii_only, capture_output=True, text=True, check=True).stdout
    assert "0.10 ? 0.20 / 0.90 ? 0.50" in text
