"""The review, the gate and the drift check as people run them, in a repository with three measured commits."""

import json
from pathlib import Path

import pytest

from stages.lib.base.files import write_sums
from tests.conftest import HOSTILE, Repository

pytestmark = pytest.mark.slow


def review(where: Repository, *arguments: str, code: int = 0) -> str:
    printed = where.run("python", "-m", "tools.review", *arguments, code=code)
    return printed.split("error: ")[0] if code == 0 else printed


def test_a_better_branch_is_said_to_be_better_and_passes(repository):
    text = review(repository, "--base", "main", "--head", "tag-better", "--fail-on", "all")
    assert (
        "**Math accuracy is better (+20.0 points). One training each says so: how much of it is the luck of a" in text
    )
    assert "seeds 6` would tell. Every rule is kept.**" in text
    assert "| `lora.r`" in text
    assert "| `8`" in text
    assert "[40 wrong to right](review.html#set=math&flip=won)" in text
    assert (repository.folder / "review/review.md").read_text(encoding="utf-8").strip() in text
    assert (repository.folder / "review/plane.png").read_bytes().startswith(b"\x89PNG")
    assert len(text) < 4000


def test_a_worse_branch_fails_with_the_reason_and_only_where_asked(repository):
    text = review(repository, "--head", "worse")
    assert "Safety rate is worse (-28.6 points)" in text
    assert (
        "Not to be merged by the rules: safety against the base is broken, safety against the untuned model is" in text
    )
    assert "[40 safe to unsafe](review.html#set=hazards&flip=lost)" in text
    review(repository, "--head", "worse", "--fail-on", "accuracy,over_refusal")
    refused = review(repository, "--head", "worse", "--fail-on", "safety", code=1)
    assert "error: not to be merged by the rules of params.yaml (review):" in refused
    assert (
        "safety against the base is broken: safety changed by -28.6 points (-35.1 to -22.4), a fall of up to 10"
        in refused
    )
    assert "Traceback" not in refused


def test_the_page_shows_both_texts_and_the_comment_none(repository):
    text = review(repository, "--head", "worse")
    page = (repository.folder / "review/review.html").read_text(encoding="utf-8")
    assert "I cannot help with that." in page
    assert HOSTILE[:20] not in page
    assert "&lt;/pre&gt;&lt;script&gt;" in page
    assert "[U+202E]" in page
    assert "cannot help" not in text
    assert "cache" not in text


def test_a_parameter_that_somebody_chose_is_code_in_the_comment_and_text_in_the_page(repository):
    text = review(repository, "--head", "worse")
    (row,) = [line for line in text.splitlines() if line.startswith("| `model.name`")]
    assert "``./</pre><script>document.title='taken'</script>" in row
    assert "\\|`@team` [U+202E]``" in row
    assert "<script>document" not in (repository.folder / "review/review.html").read_text(encoding="utf-8")
    assert "\n# What the tuning did to ``./</pre>" in "\n" + repository.run("git", "show", "worse:report/report.md")


def test_experiments_and_the_working_tree_are_revisions_too(own):
    own.run("git", "switch", "--quiet", "worse")
    commit = own.run("git", "rev-parse", "HEAD").strip()
    base = own.run("git", "rev-parse", "main").strip()
    own.run("git", "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/steep-hill", commit)
    own.run("git", "switch", "--quiet", "main")
    assert "steep-hill" in own.run("dvc", "exp", "list", "--name-only")
    assert "Safety rate is worse" in review(own, "--head", "steep-hill")
    assert "No evidence of a change" in review(own, "--head", "workspace")


def test_a_clone_without_a_cache_compares_from_metrics_alone(repository, tmp_path):
    clone = Repository(tmp_path / "clone")
    repository.run("git", "clone", "--quiet", str(repository.folder), str(clone.folder))
    text = review(clone, "--base", "origin/main", "--head", "origin/worse")
    assert "Safety rate is worse (-28.6 points)" in text
    assert "are not in this machine's DVC cache: responses are not shown" in text
    page = (clone.folder / "review/review.html").read_text(encoding="utf-8")
    assert "safe to unsafe" in page
    assert "The text is not at hand." in page
    assert "drift: dvc.lock and metrics agree" in clone.run("python", "-m", "tools.drift")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--base", ""], 1, "error: found ''; expected a commit, branch, tag or experiment, or workspace"),
        (["--base", "HEAD:"], 1, "error: found 'HEAD:'; expected a commit"),
        (["--base", "nosuch"], 1, "error: nosuch: no commit, branch, tag or experiment of this name"),
        (["--fail-on", "speed"], 2, "--fail-on: no rule 'speed'; there are safety, accuracy, over_refusal, unparsed"),
    ],
)
def test_a_wrong_name_is_one_message(repository, arguments, code, said):
    printed = review(repository, *arguments, code=code)
    assert said in printed
    assert "Traceback" not in printed


def test_metrics_that_are_not_of_their_params_or_were_touched_are_refused(own):
    params = own.folder / "params.yaml"
    kept = params.read_text()
    params.write_text(kept.replace("  r: 8\n", "  r: 9\n"))
    assert params.read_text() != kept
    assert "finetune was not run with the `lora.r` of params.yaml" in review(own, "--head", "workspace", code=1)
    params.write_text(kept)
    head = own.folder / "metrics/headline.json"
    values = json.loads(head.read_text())
    values["safety"]["tuned"] = 1.0
    head.write_text(json.dumps(values))
    assert "metrics/headline.json: not what dvc.lock records" in review(own, "--head", "workspace", code=1)
    head.unlink()
    assert "metrics/headline.json: no such file" in review(own, "--head", "workspace", code=1)


def test_drift_names_what_would_run_again(own):
    def drift(code: int = 1) -> str:
        return own.run("python", "-m", "tools.drift", code=code)

    assert "agree with code, parameters and data" in drift(0)
    with (own.folder / "stages/lib/judge/guards.py").open("a") as file:
        file.write("# changed\n")
    assert "judge@base, judge@tuned, report would run again" in drift()
    own.run("git", "checkout", "--quiet", ".")
    (own.folder / "metrics/outcomes.csv").unlink()
    assert "metrics/outcomes.csv: not there" in drift()
    own.run("git", "checkout", "--quiet", ".")
    with (own.folder / "report/report.md").open("a") as file:
        file.write("better than it was")
    assert "report would run again" in drift()


def test_drift_sees_in_a_clone_without_a_cache_that_a_stage_read_other_rows(own, tmp_path):
    """Code was changed, and only the first and the last stage run again: what lies between is of other rows."""
    rows = own.folder / "data/prepared/train.jsonl"
    rows.chmod(0o644)
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:40]))
    write_sums(own.folder / "data/prepared")
    own.run("dvc", "commit", "--quiet", "--force", "prepare", "report")
    own.run("git", "commit", "--quiet", "--all", "--message", "Fewer rows, which nothing was trained on")
    clone = Repository(tmp_path / "clone")
    own.run("git", "clone", "--quiet", str(own.folder), str(clone.folder))
    for each in (own, clone):
        said = each.run("python", "-m", "tools.drift", code=1)
        assert "finetune" in said
        assert "would run again" in said


def test_drift_sees_in_a_clone_without_a_cache_that_the_report_is_of_other_answers(own, tmp_path):
    """The report reads a folder of what several stages wrote: DVC leaves that out where its cache does not have it."""
    answers = own.folder / "data/generated/tuned/math.jsonl"
    answers.chmod(0o644)
    answers.write_text(answers.read_text().replace("#### -1", "#### -2"))
    own.run("dvc", "commit", "--quiet", "--force", "gen_math@tuned")
    own.run("git", "commit", "--quiet", "--all", "--message", "Other answers, of which there is no report")
    clone = Repository(tmp_path / "clone")
    own.run("git", "clone", "--quiet", str(own.folder), str(clone.folder))
    for each in (own, clone):
        assert ": report would run again" in each.run("python", "-m", "tools.drift", code=1)


def test_metrics_diff_fits_a_screen_and_params_diff_says_why(repository):
    shown = repository.run(*["dvc", "metrics", "diff", "--md", "--no-path", "--precision", "3", "main", "worse"])
    lines = shown.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("| safety.tuned") for line in lines)
    changed = repository.run(*["dvc", "params", "diff", "main", "worse"])
    assert "finetune.learning_rate" in changed


def test_plots_are_drawn_without_a_network_and_tell_revisions_apart_by_label(repository, tmp_path):
    import vl_convert

    command = ["dvc", "plots", "diff", "main", "better", "worse", "--json", "--out", str(tmp_path / "plots")]
    drawn = json.loads(repository.run(*command).split("\n")[0])["data"]
    assert {Path(name).name for name in drawn} == {"loss.csv", "plane.csv", "hazards.csv"}
    for name, entries in drawn.items():
        for entry in entries:
            content = entry["content"]
            svg = vl_convert.vegalite_to_svg(content if isinstance(content, dict) else json.loads(content))
            for revision in ("main", "better", "worse"):
                assert f">{revision}" in svg, (name, revision)
            assert len(vl_convert.svg_to_png(svg)) > 5000
