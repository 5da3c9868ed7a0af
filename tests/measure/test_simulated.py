"""Some of the tables of docs/STATISTICS.md in small: error rates and coverage that other methods do not have."""

import numpy as np
import pytest

from stages.lib.report.wording import markdown_table
from tests.conftest import ROOT
from tools.simulate import decisions, labels, samples


def rng():
    return np.random.default_rng(1126)


def test_the_tables_without_samples_stand_in_the_document():
    document = (ROOT / "docs/STATISTICS.md").read_text()
    for table in (decisions.limits, decisions.worst, decisions.tested):
        assert markdown_table(table(0, rng())) in document


def test_what_truly_fell_by_the_margin_is_kept_in_five_percent():
    rows = decisions.paired(500, rng(), sizes=(14, 48, 140))  # 10,000 tables each
    assert max(float(row["ours"]) for row in rows) < 6
    assert max(float(row["ours: broken"]) for row in rows) < 6
    assert max(float(row["Bonett-Price"]) for row in rows) > 7
    assert max(float(row["Wald"]) for row in rows) > 40


def test_no_number_of_prompts_errs_by_much():
    for row in decisions.worst(0, rng(), sizes=(12, 52, 76, 104)):
        assert max(float(row["ours: kept"]), float(row["ours: broken"])) < 5.5
        if row["margin"] == "5":
            assert float(row["Bonett-Price: kept"]) > 10
            assert float(row["Tango: kept"]) > 6.5


def test_the_gate_decides_where_the_old_rule_let_pass():
    at = {row["true fall"]: row for row in decisions.curve(250, rng(), sizes=(112,))}
    assert float(at["10"]["before: passes"]) > 35
    assert float(at["10"]["5: kept"]) < 1
    assert float(at["10"]["10: kept"]) < 6.5
    assert float(at["0"]["10: kept"]) > 70
    assert float(at["0"]["any fall: broken"]) < 6


def test_the_numbers_of_prompts_decide_in_four_of_five_tries():
    rows = {(row["margin"], row["flips"]): float(row["kept"]) for row in decisions.wanted(250, rng())}
    assert rows["5", "20"] == pytest.approx(80, abs=2.5)
    assert rows["10", "20"] == pytest.approx(80, abs=4)
    for row in decisions.shown(250, rng()):
        assert float(row["alone: found"]) == pytest.approx(80.5, abs=2.5)
        assert float(row["of three: found"]) == pytest.approx(80.5, abs=2.5)


def test_groups_are_allowed_for():
    rows = samples.in_groups(200, rng(), sets=((40, 2), (20, 10)))  # 100 samples each
    assert max(float(row["ours"]) for row in rows) < 11
    assert max(float(row["kept: Bonett-Price"]) for row in rows) > 20
    assert max(float(row["no groups"]) for row in rows) > 20
    assert min(float(row["ours "]) for row in rows) > 87
    assert min(float(row["held: Wilson"]) for row in rows) < 50


def test_intervals_over_three_seeds_hold_where_the_bootstrap_is_too_narrow():
    rows = samples.trainings(600, rng(), sizes=(112,), sides=((3, 3),))  # 150 samples each
    assert min(float(row["ours"]) for row in rows) > 90
    assert min(float(row["Multi-Bootstrap"]) for row in rows) < 90
    assert min(float(row["one seed, prompts alone"]) for row in rows) < 60


def test_one_seed_with_a_known_spread_holds():
    rows = samples.single_trainings(160, rng(), sizes=(112,))  # 80 samples each
    assert min(float(row["ours"]) for row in rows) > 88
    assert min(float(row["prompts alone"]) for row in rows) < 55


def test_the_judges_errors_reach_the_interval():
    cases = {name: labels.CASES[name] for name in ("nothing changed", "fell by 9")}
    rows = labels.judges(150, rng(), cases, sets=((140, 40),))  # 30 samples each
    for row in rows:
        assert float(row["ours: holds"]) > 85
        assert float(row["pairs: holds"]) > 85
    unchanged, fell = rows
    assert float(unchanged["judge"]) < -8
    assert float(unchanged["judge finds"]) > 30 > float(unchanged["ours: finds"])
    assert float(fell["judge finds"]) < 25
    assert float(fell["pairs: finds"]) > 70 > float(fell["ours: finds"])
