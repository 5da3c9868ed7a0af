"""A change of form told from a change of skill."""

from hypothesis import given
from hypothesis import strategies as st

from stages.lib.measure.form import form_and_skill
from stages.lib.measure.stats import paired

rules = st.sampled_from(("", "s", "f", "p", "sf", "fp", "sfp"))


def test_the_split_by_hand():
    # 1 learned to write ####; 2 learned to sum; 3 forgot; 4 right throughout; 5 lost the form; 6 never
    before, after = ["f", "", "sf", "sfp", "sf", ""], ["sf", "sf", "", "sfp", "fp", ""]
    split = form_and_skill(before, after)
    assert (split.whole.change.lost, split.whole.change.gained) == (2, 2)
    assert (split.skill.change.lost, split.skill.change.gained) == (1, 1)
    assert (split.form.lost, split.form.gained) == (1, 1)


def test_a_model_that_only_learns_the_form_has_learned_no_skill():
    split = form_and_skill(["f"] * 30 + [""] * 70, ["sf"] * 30 + [""] * 70)
    assert split.whole.change.value == split.form.value == 0.3
    assert (split.skill.change.value, split.skill.change.p) == (0, 1)
    assert split.form.low > 0.2


def test_by_another_rule():
    assert form_and_skill(["s"] * 10, ["sf"] * 10, rule="f").form.value == 1


@given(st.lists(st.tuples(rules, rules), min_size=1, max_size=40), st.sampled_from("sfp"))
def test_the_parts_add_up(pairs, rule):
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    groups = [str(n // 2) for n in range(len(pairs))]
    split = form_and_skill(before, after, groups, rule)
    assert abs(split.whole.change.value - split.skill.change.value - split.form.value) < 1e-12
    assert split.whole == paired([rule in b for b in before], [rule in a for a in after], groups)
