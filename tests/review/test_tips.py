"""Where safety fell, report and review end with what was measured to help; where nothing was, they say nothing."""

import pytest

from stages.lib.report.published import load_study
from tests.conftest import ROOT
from tests.runs.made_up import Counts, outcomes, write_all, write_results

SAID = "`python -m tools.mitigations`".strip("`")
COMMAND = "dvc exp run -S finetune.mask_perplexity=2.5  # mask"


@pytest.fixture
def results(own):
    """The repository's folder of results, and the study that they are of."""
    return own.folder / "metrics/runs", load_study(ROOT / "runs.yaml")


def shown(own, name: str) -> str:
    return (own.folder / name).read_text(encoding="utf-8")


def test_report_and_review_end_with_what_helped_where_safety_fell(own, results):
    own.run("git", "switch", "--quiet", "-c", "fell")
    write_all(*results)
    own.measure("fell", right=80, safe=40)
    own.run("python", "-m", "tools.review")
    for name in ("report/report.md", "review/review.md"):
        end = shown(own, name).partition("What to try")[2]
        assert "Safety fell. These were measured to keep more of it: run02 of runs.yaml" in end, name
        assert "| mask  | +40.0 (" in end, name
        assert end.endswith(f"```\n{COMMAND}\n```\n"), name
    for name in ("report/report.html", "review/review.html"):
        page = shown(own, name)
        assert page.index('id="prompts"') < page.index("<h2>What to try</h2>") < page.index(COMMAND), name


def test_where_safety_did_not_fall_or_nothing_helped_nothing_is_said(own, results):
    folder, study = results
    own.run("git", "switch", "--quiet", "-c", "kept")
    write_all(folder, study)
    own.measure("kept", right=80, safe=80)
    assert "What to try" not in shown(own, "report/report.md")
    write_results(folder, study, "laptop", "mask", outcomes(Counts(58, 41)))
    own.measure("fell", right=80, safe=40)
    own.run("python", "-m", "tools.review")
    for name in ("report/report.md", "report/report.html", "review/review.md", "review/review.html"):
        assert "What to try" not in shown(own, name), name
