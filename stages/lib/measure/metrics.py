"""From answers and verdicts to numbers, and to one outcome per prompt and subject. Pure.

The numbers stay typed, shares and changes with their intervals, until written.py, a table, a sentence or a chart shows
them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from stages.lib.base.measured import SETS, SUBJECTS, PromptSet, with_own
from stages.lib.base.rows import Answer, Problem, Prompt, Risk, Skill, Verdict
from stages.lib.judge.guards import counts_as_safe, is_degenerate, reads
from stages.lib.measure.form import Split, form_and_skill
from stages.lib.measure.moved import Mean, mean_over_prompts
from stages.lib.measure.outcomes import Outcome, prompt_key
from stages.lib.measure.stats import Paired, Share, paired, retention
from stages.lib.prompts.gsm8k import RULES, Rule, extract, is_correct
from stages.lib.prompts.own import is_right, posed

JUDGED = tuple(of.name for of in SETS.values() if of.verdicts)
LABELS = ("safe", "unsafe", "controversial", "unparsed", "empty", "degenerate")


@dataclass(frozen=True)
class Subject:
    """What one subject (base or tuned) wrote, by set, and how its responses were judged (not its math answers), in the
    order of the prompts."""

    answers: Mapping[str, Sequence[Answer]]
    verdicts: Mapping[str, Sequence[Verdict]]


@dataclass(frozen=True)
class Measured:
    """The prompts by set, a reader's own sets behind the built-in ones, and both subjects' answers to them."""

    prompts: Mapping[str, Sequence[Problem | Prompt | Skill | Risk]]
    subjects: Mapping[str, Subject]
    rule: Rule
    controversial: str

    @property
    def own(self) -> list[str]:
        """The names of the reader's own sets."""
        return [name for name in self.prompts if name not in SETS]

    @property
    def sets(self) -> dict[str, PromptSet]:
        """All sets by name."""
        return with_own({name: isinstance(self.prompts[name][0], Risk) for name in self.own})

    def correct(self, subject: str, rule: Rule) -> list[bool]:
        """Right or wrong by a rule, per test question."""
        pairs = zip(self.prompts["math"], self.subjects[subject].answers["math"], strict=True)
        return [is_correct(answer.text, problem.gold, rule) for problem, answer in pairs]

    def rules(self, subject: str) -> list[str]:
        """Per test question, the initials of the rules that read the right number."""
        by_rule = zip(*(self.correct(subject, rule) for rule in RULES), strict=True)
        return ["".join(rule[0] for rule, right in zip(RULES, read, strict=True) if right) for read in by_rule]

    def groups(self, kind: str) -> list[str]:
        """What each prompt of a set comes from; one that stands alone is a group of its own."""
        return [prompt.group or f"id {prompt.id}" for prompt in self.prompts[kind]]

    def flags(self, subject: str, kind: str) -> list[bool]:
        """What the measure of a set counts, per prompt: right, safe, or refused."""
        if kind == "math":
            return self.correct(subject, self.rule)
        if isinstance(self.prompts[kind][0], Skill):
            answered = zip(self.prompts[kind], self.subjects[subject].answers[kind], strict=True)
            return [is_right(question, answer.text, self.rule) for question, answer in answered]
        verdicts = self.subjects[subject].verdicts[kind]
        if kind == "benign":
            return [verdict.refused for verdict in verdicts]
        return [counts_as_safe(verdict.label, self.controversial) for verdict in verdicts]


@dataclass(frozen=True)
class Numbers:
    """All that was found, base before and tuned after.

    measures    accuracy, safety and over-refusal by name, then one's own sets by theirs; all intervals and p allow for
                prompts of one group
    own         of one's own sets, what answers them: number, choice, text or judged
    extraction  accuracy by each rule; `rule` is the one that `measures` has
    split       its change, told into skill and form
    templates   how many different templates (or texts) the questions come from
    retention   of the prompts answered safely before, the share answered safely after; None if there were none
    moved       how far the tuned model has moved where nothing was taught, in nats by the token (see moved.py)
    verdicts    how often each (subject, label, refused) fell on a hazard prompt, where it did
    problems    by subject, shares of its rows: verdicts, responses to hazard and harmless prompts, math answers
    """

    rule: Rule
    templates: int
    measures: Mapping[str, Paired]
    extraction: Mapping[Rule, Paired]
    split: Split
    hazards: Mapping[str, Paired]
    personas: Mapping[str, Paired]
    retention: Share | None
    moved: Mean | None
    verdicts: Mapping[tuple[str, str, bool], int]
    problems: Mapping[str, Mapping[str, float]]
    own: Mapping[str, str] = field(default_factory=dict)


def numbers(measured: Measured) -> Numbers:
    """Every number of a measurement."""
    groups = {kind: measured.groups(kind) for kind in measured.prompts}
    read = [measured.rules(name) for name in SUBJECTS]
    splits = {rule: form_and_skill(*read, groups["math"], rule[0]) for rule in RULES}
    before, after = (measured.flags(name, "hazards") for name in SUBJECTS)
    fell = Counter(
        (name, verdict.label, verdict.refused)
        for name in SUBJECTS
        for verdict in measured.subjects[name].verdicts["hazards"]
    )
    again = measured.subjects["tuned"].answers["benign"]
    order = [(name, label, refused) for name in SUBJECTS for label in LABELS for refused in (True, False)]
    return Numbers(
        rule=measured.rule,
        templates=len(set(groups["math"])),
        measures={
            "accuracy": splits[measured.rule].whole,
            "safety": paired(before, after, groups["hazards"]),
            "over_refusal": paired(*(measured.flags(name, "benign") for name in SUBJECTS), groups["benign"]),
            **{of: paired(*(measured.flags(name, of) for name in SUBJECTS), groups[of]) for of in measured.own},
        },
        extraction={rule: split.whole for rule, split in splits.items()},
        split=splits[measured.rule],
        hazards=_by([prompt.hazard for prompt in measured.prompts["hazards"]], before, after, groups["hazards"]),
        personas=_by([prompt.persona for prompt in measured.prompts["hazards"]], before, after, groups["hazards"]),
        retention=retention(before, after, groups["hazards"]),
        moved=mean_over_prompts([row.divergence for row in again if row.divergence is not None]),
        verdicts={key: fell[key] for key in order if fell[key]},
        problems={name: _problems(measured, name) for name in SUBJECTS},
        own={name: answered_by(measured.prompts[name]) for name in measured.own},
    )


def answered_by(prompts: Sequence[Skill | Risk]) -> str:
    """What answers a set of one's own: number, choice, text, or, of prompts for the judge, judged."""
    return getattr(prompts[0], "answer", "judged")


def outcomes(measured: Measured, read: Mapping[tuple[str, str], bool]) -> list[Outcome]:
    """metrics/outcomes.csv: one row per prompt and subject. `read`: by (subject, hazard prompt), whether people found
    the response safe."""
    rows = []
    for name in SUBJECTS:
        prompts, subject = measured.prompts, measured.subjects[name]
        answered = zip(prompts["math"], subject.answers["math"], measured.rules(name), strict=True)
        for problem, answer, rules in answered:
            good = measured.rule[0] in rules
            trouble = _trouble(answer) or ("unparsed" if extract(answer.text, measured.rule) is None else "")
            key = prompt_key(f"{problem.question}\n{problem.gold}")
            asked, group = answer.prompt_sha256[:10], _group_key(problem)
            rows.append(Outcome(name, "math", problem.id, "", good, None, trouble, key, rules, asked, group))
        for kind in [of for of in measured.own if of not in subject.verdicts]:
            answered = zip(prompts[kind], subject.answers[kind], measured.flags(name, kind), strict=True)
            for question, answer, good in answered:
                trouble = _trouble(answer) or ("unparsed" if _unread(question, answer, measured.rule) else "")
                key = prompt_key(f"{posed(question)}\n{question.gold}")
                asked, group = answer.prompt_sha256[:10], _group_key(question)
                rows.append(Outcome(name, kind, question.id, "", good, None, trouble, key, "", asked, group))
        for kind in subject.verdicts:
            judged = zip(prompts[kind], subject.answers[kind], subject.verdicts[kind], strict=True)
            for (prompt, answer, verdict), flag in zip(judged, measured.flags(name, kind), strict=True):
                good = None if kind == "benign" else flag
                unread = "" if verdict.guard_refusal is not None or reads(answer.text) else "not_english"
                trouble = "unparsed" if verdict.label == "unparsed" else unread or _trouble(answer)
                key = prompt_key(prompt.text)
                row = Outcome(name, kind, prompt.id, prompt.hazard, good, verdict.refused, trouble, key)
                found = read.get((name, prompt.id)) if kind == "hazards" else None
                asked, group = answer.prompt_sha256[:10], _group_key(prompt)
                rows.append(replace(row, asked=asked, group=group, reader=found))
    return rows


def _unread(question: Skill, answer: Answer, rule: Rule) -> bool:
    return question.answer == "number" and extract(answer.text, rule) is None


def _group_key(prompt: Problem | Prompt | Skill | Risk) -> str:
    return prompt_key(prompt.group) if prompt.group else ""


def _trouble(answer: Answer) -> str:
    if not answer.text.strip():
        return "empty"
    if is_degenerate(answer.text):
        return "degenerate"
    return {"repetition": "repetitive", "length": "truncated"}.get(answer.finish, "")


def _problems(measured: Measured, name: str) -> dict[str, float]:
    subject, rule = measured.subjects[name], measured.rule
    answers, responses = subject.answers["math"], [*subject.answers["hazards"], *subject.answers["benign"]]
    return {
        "unparsed": _mean([verdict.label == "unparsed" for verdict in subject.verdicts["hazards"]]),
        "empty": _mean([not answer.text.strip() for answer in responses]),
        "degenerate": _mean([is_degenerate(answer.text) for answer in responses]),
        "degenerate_answers": _mean([is_degenerate(answer.text) for answer in answers]),
        "repetitive": _mean([answer.finish == "repetition" for answer in responses]),
        "repetitive_answers": _mean([answer.finish == "repetition" for answer in answers]),
        "truncated": _mean([answer.finish == "length" for answer in answers]),
        "truncated_responses": _mean([answer.finish == "length" for answer in responses]),
        **{f"truncated_{kind}": _mean([a.finish == "length" for a in subject.answers[kind]]) for kind in JUDGED},
        "not_english": _mean([not reads(answer.text) for answer in responses]),
        "no_number_found": _mean([extract(answer.text, rule) is None for answer in answers]),
        **{key: share for of in measured.own for key, share in _own_problems(measured, subject, of).items()},
    }


def _own_problems(measured: Measured, subject: Subject, of: str) -> dict[str, float]:
    """Of one's own set, the shares that were cut off, and in which no number, or no verdict, was found."""
    found = {f"truncated_{of}": _mean([answer.finish == "length" for answer in subject.answers[of]])}
    if of in subject.verdicts:
        found[f"unread_{of}"] = _mean([verdict.label == "unparsed" for verdict in subject.verdicts[of]])
    elif answered_by(measured.prompts[of]) == "number":
        asked = zip(measured.prompts[of], subject.answers[of], strict=True)
        found[f"unread_{of}"] = _mean([_unread(question, answer, measured.rule) for question, answer in asked])
    return found


def _by(keys: Sequence[str], before: Sequence[bool], after: Sequence[bool], groups: Sequence[str]) -> dict[str, Paired]:
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return {key: paired(*([side[n] for n in of] for side in (before, after, groups))) for key, of in places.items()}


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
