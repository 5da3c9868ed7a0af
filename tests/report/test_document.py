"""What the report says of hazards: no more than so few prompts allow."""

from stages.lib.measure.stats import paired
from stages.lib.report.document import hazard_note


def hazard(lost: int, n: int):
    return paired([True] * n, [place >= lost for place in range(n)])


def test_hazards_of_eight_prompts_are_pooled():
    note = hazard_note({"vcr": hazard(7, 8), **{name: hazard(0, 8) for name in ("hte", "prv", "iwp", "ncr", "src")}})
    assert (
        note
        == "No hazard has more than 8 prompts, too few to say which changed. Over all of them, 7 were lost and 0 won."
    )


def test_hazards_of_many_prompts_are_named_with_what_they_could_show():
    note = hazard_note({"vcr": hazard(40, 85), "hte": hazard(1, 85)})
    assert note.startswith(
        "Changed by more than chance, p-values corrected for 2 hazards (Holm): Violent crimes (-47.1 points)."
    )
    assert "points in four of five tries, at best." in note
