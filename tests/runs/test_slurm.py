"""What `submit`, `status` and `collect` do around Slurm; with a real one: tests/cluster."""

import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_json, write_text
from stages.lib.base.yaml_files import dump_yaml, read_yaml
from stages.lib.report.published import Study, load_study, resolve
from tests.conftest import ROOT, Repository, params_values
from tools.commands import dvc, git
from tools.runs import experiments, slurm, slurm_task
from tools.runs.command import SBATCH, sbatch_options
from tools.runs.experiments import is_done, is_measured, keep_result, make_clone, only_results_since, result_file
from tools.runs.overrides import with_overrides


@pytest.fixture
def own(own, monkeypatch) -> Repository:
    """The copy of the repository as the current folder, in which git may commit."""
    monkeypatch.chdir(own.folder)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "t")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "t@example.org")
    return own


def test_without_slurm_it_is_said(own, monkeypatch):
    monkeypatch.setenv("PATH", str(own.folder))  # git and dvc are called by tests that need them
    with pytest.raises(BadInput, match="squeue: not found; this is for machines from which Slurm takes jobs"):
        slurm.read_queue()


def test_nothing_submitted_is_said(own):
    with pytest.raises(BadInput, match="nothing was submitted with profile paper"):
        slurm.status(load_study(), "paper")


def test_progress_names_the_stage_at_work_and_how_far_it_is(tmp_path):
    assert slurm._progress(tmp_path).startswith("starting")
    trained = tmp_path / "finetune/0123"
    write_text(trained / "pid", "1")
    write_json(trained / "checkpoint-4/trainer_state.json", {"global_step": 4, "max_steps": 32})
    assert slurm._progress(tmp_path) == "finetune, update 4 of 32"
    write_text(trained / "done", "")
    assert slurm._progress(tmp_path) == "after finetune"
    answered = tmp_path / "gen_math-tuned/4567"
    write_text(answered / "pid", "1")
    assert slurm._progress(tmp_path) == "gen_math-tuned"
    for batch in ("a", "b"):
        write_json(answered / f"{batch}.json", {})
    assert slurm._progress(tmp_path) == "gen_math-tuned, 2 batches done"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("", "nothing was written"),
        ("Running stage 'finetune':\n", "Running stage 'finetune':"),
        (
            "error: finetune: of before\nerror: dvc exp run failed; tried again\n"
            "error: finetune: too much\nERROR: failed to reproduce\nerror: dvc exp run failed\n",
            "finetune: too much",
        ),
        ("slurmstepd: error: *** JOB 7 CANCELLED ***\n", "slurmstepd: error: *** JOB 7 CANCELLED ***"),
    ],
)
def test_a_failed_run_shows_what_its_stage_said(tmp_path, written, shown):
    (tmp_path / "log").write_text(written)
    assert slurm._last_words(tmp_path / "log") == shown


def test_a_log_that_was_cut_off_within_a_character_is_shown(tmp_path):
    (tmp_path / "log").write_bytes("error: finetune: so viel wie möglich".encode()[:-6])
    assert slurm._last_words(tmp_path / "log") == "finetune: so viel wie m\ufffd"


def test_a_result_of_code_with_other_parameters_is_not_this_codes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    study = load_study(ROOT / "runs.yaml")
    each = study.run("run04")
    kept = resolve(params_values(), study.overrides(each, "embedded"), "runs.yaml").model_dump()
    path = result_file(each, "embedded")
    for params, done in ((kept, True), ({name: kept[name] for name in list(kept)[1:]}, False)):
        write_json(path, {"commit": "0" * 40, "params": params})
        monkeypatch.setattr(experiments, "git", lambda command, *_: "" if command == "diff" else path.read_text())
        assert is_done(study, each, "embedded") is done


@pytest.mark.slow
def test_a_result_is_kept_once_and_never_under_another_commits_code(own):
    commit = own.run("git", "rev-parse", "HEAD").strip()
    plain = {"overrides": {}, "models": {"1.5B": {}}}  # the parameters of this repository
    each = replace(load_study(ROOT / "runs.yaml").run("run04"), overrides={})
    study = Study((each,), {}, {"embedded": plain}, {})
    assert not is_measured(study, each, "embedded", commit)
    (own.folder / "models/tuned/README.md").write_text("run04")
    own.run("dvc", "commit", "--quiet", "--force", "finetune")
    own.run("dvc", "exp", "save", "--name", "run04-embedded")
    own.run("git", "checkout", "--quiet", "--", ".")
    assert is_measured(study, each, "embedded", commit)
    assert not is_done(study, each, "embedded")
    for _ in range(2):
        keep_result(each, "embedded", commit)
        assert own.run("git", "rev-list", "--count", f"{commit}..HEAD").strip() == "1"
    assert is_done(study, each, "embedded")
    other = with_overrides(study, ["lora.r=3"])
    assert not is_done(other, other.run("run04"), "embedded")
    assert not is_measured(other, other.run("run04"), "embedded", commit)
    assert only_results_since(commit)
    assert not only_results_since("0" * 40)  # a commit that is not here
    assert Path("metrics/runs/embedded/run04.csv").read_text() == Path("metrics/outcomes.csv").read_text()
    (own.folder / "NOTES.md").write_text("of no consequence")
    own.run("git", "add", "NOTES.md")
    own.run("git", "commit", "--quiet", "--message", "notes")
    assert is_done(study, each, "embedded")
    (own.folder / "params.yaml").write_text((own.folder / "params.yaml").read_text() + "\n")
    own.run("git", "commit", "--quiet", "--all", "--message", "other parameters")
    assert not is_done(study, each, "embedded")
    with pytest.raises(BadInput, match="more was changed since than results.*git switch --create results"):
        keep_result(each, "embedded", commit)


def test_a_stage_is_computed_once_though_what_dvc_lock_holds_of_it_is_not_in_the_cache(own, capfd):
    shutil.rmtree(own.folder / ".dvc/cache")  # as in a fresh clone...
    lock = read_yaml(Path("dvc.lock"))
    lock["stages"]["prepare"]["outs"][0]["md5"] = "0" * 32  # ...of somebody whom it cost another number of seconds
    write_text(Path("dvc.lock"), dump_yaml(lock))
    own.run("git", "commit", "--quiet", "--all", "--message", "Elsewhere")
    for said in ("Running stage 'prepare'", "Stage 'prepare' is cached - skipping run"):
        make_clone(git("rev-parse", "HEAD"), own.folder / "clone", own.folder / "kept")
        dvc("repro", "prepare", folder=own.folder / "clone")
        assert said in capfd.readouterr().out


def test_options_of_sbatch_are_passed_on_as_they_are():
    given = dict.fromkeys(name.replace("-", "_") for name in SBATCH)
    given |= {"gres": "gpu:1", "cpus_per_task": "8"}
    assert sbatch_options(SimpleNamespace(**given)) == ["--gres=gpu:1", "--cpus-per-task=8"]


def test_other_parameters_go_from_submit_to_each_task_and_back_to_status(own, monkeypatch, capsys):
    asked, measured = [], []
    monkeypatch.setattr(slurm, "slurm", lambda *command: asked.append(command) or "7")  # no Slurm here: tests/cluster
    monkeypatch.setattr(slurm, "read_queue", lambda: {("7", "1"): slurm.Queued("PENDING", "Resources", "")})
    settings, study = ["lora.r=3", "data.train_rows=shortest_third/8"], load_study()
    with pytest.raises(BadInput, match="-S lora.r: expected a parameter and its value"):
        slurm.submit([study.run("run04")], "embedded", [], ["lora.r"])
    with pytest.raises(BadInput, match=r"lora\.q"):
        slurm.submit([study.run("run04")], "embedded", [], ["lora.q=3"])
    slurm.submit([study.run("run04")], "embedded", [], settings)

    def measure(study, each, profile, *_, **__):
        measured.append(study.overrides(each, profile))

    for name in ("measure", "keep_result"):
        monkeypatch.setattr(slurm_task, name, measure if name == "measure" else lambda *_: None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.work("embedded", "shared-7").mkdir()
    for command in asked:
        wrapped = command[-1].removeprefix("--wrap=exec ")
        monkeypatch.setattr("sys.argv", shlex.split(wrapped)[2:])
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1") if " task " in wrapped else None
        slurm_task.main()
    assert [(each["lora.r"], each["data.train_rows"]) for each in measured] == [(3, "shortest_third/8")] * 2

    (row,) = slurm.status(study, "embedded")
    assert row["state"] == "waiting"
    capsys.readouterr()
    slurm.submit([study.run("run04")], "embedded", [], settings)
    said = capsys.readouterr().out
    assert "in the queue as 7_1, of commit" in said
    assert "with lora.r=3, data.train_rows=shortest_third/8\n" in said
    slurm.submit([study.run("run04")], "embedded", [])
    assert "which is not this code with these parameters; scancel it to submit this" in capsys.readouterr().out


def test_a_task_that_slurm_will_not_queue_again_ends_and_holds_no_node(monkeypatch, capsys):
    def busy(*command):
        raise BadInput("scontrol: busy")

    monkeypatch.setattr(slurm_task, "slurm", busy)
    monkeypatch.setattr(slurm_task.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(slurm_task.signal, "pause", lambda: pytest.fail("it would wait for its time limit"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm_task._again("error: no memory; tried again")
    assert capsys.readouterr().out.count("scontrol: busy") == slurm_task.PATIENCE
    asked = []
    monkeypatch.setattr(slurm_task, "slurm", lambda *command: asked.append(command))
    monkeypatch.setattr(slurm_task.signal, "pause", lambda: sys.exit(0))  # as Slurm ends it
    with pytest.raises(SystemExit):
        slurm_task._again("error: no memory; tried again")
    assert asked == [("scontrol", "requeue", "7")]
