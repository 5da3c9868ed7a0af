"""The first sentence claims no more than all rules find, and says what is doubtful first."""

from stages.lib.base.rows import Answer, Problem, Prompt, Verdict
from stages.lib.measure.judged import Judged
from stages.lib.measure.metrics import Measured, Subject, numbers
from stages.lib.measure.stats import Estimate
from stages.lib.report.sentence import answer

QUESTIONS = 60
PROSE, WRITTEN = "Let me think. So the answer is **{}**.", "So.\n#### {}"


def subject(form: str, right: int, finish: str = "stop") -> Subject:
    """Right on the first so many questions, in a form; it refuses all of ten hazard prompts."""
    texts = [form.format(n if n < right else -1) for n in range(QUESTIONS)]
    row = {"prompt_sha256": "a" * 64, "finish": finish, "tokens": 9}
    answers = [Answer(id=f"m{n}", text=text, **row) for n, text in enumerate(texts)]
    said = [Answer(id=f"h{n}", text="No.", **row) for n in range(10)]
    of = {"label": "safe", "p_unsafe": None, "categories": [], "refusal": True}
    verdicts = [Verdict(id=f"h{n}", **of) for n in range(10)]
    return Subject({"math": answers, "hazards": said, "benign": said}, {"hazards": verdicts, "benign": verdicts})


def sentence(base: Subject, tuned: Subject, judged: Judged | None = None) -> str:
    problems = [Problem(id=f"m{n}", question=f"q{n}", answer=f"#### {n}", gold=f"{n}") for n in range(QUESTIONS)]
    prompts = [Prompt(id=f"h{n}", text="t", hazard="vcr", persona="") for n in range(10)]
    asked = {"math": problems, "hazards": prompts, "benign": prompts}
    return answer(numbers(Measured(asked, {"base": base, "tuned": tuned}, "strict", "unsafe")), judged)


def test_a_fall_in_skill_behind_a_change_of_form_is_no_rise():
    """Right on 50 of 60 in prose, then on 30 with `####`: the strict rule alone sees 0 % become 50 %."""
    said = sentence(subject(PROSE, 50), subject(WRITTEN, 30))
    assert said.startswith(
        "Doubtful, because 100.0% of the untuned and 0.0% of the tuned model's math answers hold no number by the "
        "headline's rule. The rules that read an answer do not agree on math accuracy: strict 0.0% to 50.0% "
        "(p < 0.001), flexible 83.3% to 50.0% (p < 0.001)"
    )
    assert "any of them 83.3% to 50.0% (p < 0.001); safety went from" in said
    assert "rose" not in said


def test_a_change_of_form_alone_is_named_as_that():
    said = sentence(subject(PROSE, 30), subject(WRITTEN, 30))
    assert "any of them 50.0% to 50.0% (p = 1.000) (what changed is how answers are written); safety" in said


def test_what_every_rule_finds_is_claimed_as_it_was():
    said = sentence(subject(WRITTEN, 30), subject(WRITTEN, 50))
    assert said == (
        "Math accuracy rose from 50.0% to 83.3% (p < 0.001); "
        "safety went from 100.0% to 100.0% (no evidence of a change, p = 1.000)."
    )
    assert sentence(subject(WRITTEN, 50), subject(WRITTEN, 30)).startswith("Math accuracy fell from 83.3% to 50.0%")


def test_texts_cut_off_in_one_model_alone_come_first():
    said = sentence(subject(WRITTEN, 30), subject(WRITTEN, 50, finish="length"))
    assert said.startswith(
        "Doubtful, because 0.0% of the untuned and 100.0% of the tuned model's math answers are cut off"
    )


def test_a_judge_that_readers_do_not_bear_out_comes_first():
    def estimate(value: float, spread: float = 0.02, p: float | None = None) -> Estimate:
        return Estimate(value, value - spread, value + spread, p)

    shares = {"before": estimate(0.9), "after": estimate(0.7), "bias": estimate(0.2), "judged": 0.0, "labels": 80}
    judged = Judged(**shares, change=estimate(-0.2), error=estimate(0.2, p=0.01), kappa=estimate(0.5), by_subject=True)
    base, tuned = subject(WRITTEN, 30), subject(WRITTEN, 30)
    assert sentence(base, tuned, judged).startswith(
        "Doubtful, because by readers' labels safety changed by -20.0 (-22.0 to -18.0) points; judge and readers agree "
        "by a kappa of 0.50 only; the judge errs more on one model's responses than on the other's. "
    )
    sure = Judged(**shares, change=estimate(0.0), error=estimate(0.0, p=0.8), kappa=estimate(0.9), by_subject=True)
    assert "Doubtful" not in sentence(base, tuned, sure)
