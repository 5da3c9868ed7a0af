"""What holds for any input: rows or BadInput and nothing else, a verdict never safe by accident, tables read back."""

import ast
import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from stages.lib.base.errors import BadInput
from stages.lib.base.measured import HAZARDS
from stages.lib.base.params import Params, load_params, parse_params
from stages.lib.base.rows import Answer, Verdict, read_jsonl
from stages.lib.base.texts import code, quoted, visible
from stages.lib.base.yaml_files import dump_yaml
from stages.lib.data.sources import load_hazards, load_problems
from stages.lib.judge.guards import is_degenerate, parse_llama_guard, parse_qwen3guard
from stages.lib.measure.outcomes import PROBLEMS, Outcome, from_csv, prompt_key, to_csv
from stages.lib.prompts.gsm8k import RULES, extract, is_correct
from tests.conftest import params_values
from tests.data.test_sources import HEADER, data_from
from tools.annotate import cell

pytestmark = pytest.mark.faults
one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

LABELS = {"safe", "unsafe", "controversial", "unparsed"}
texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates()
junk = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner), max_leaves=8
)
SECTIONS = list(params_values())
FIELDS = [(section, key) for section, values in params_values().items() for key in values]


def params_or_refused(values: Any) -> Params | None:
    try:
        return parse_params(values, "params.yaml")
    except BadInput as error:
        assert "params.yaml" in str(error)
    return None


@given(junk | st.dictionaries(st.sampled_from(SECTIONS), junk))
def test_no_junk_is_params(values):
    assert params_or_refused(values) is None


@given(st.sampled_from(FIELDS), junk)
def test_junk_in_a_field_is_a_value_or_refused(field, value):
    section, key = field
    values = params_values()
    values[section][key] = value
    params_or_refused(values)


@one_folder
@given(st.binary() | texts.map(str.encode) | junk.map(lambda value: repr(value).encode(errors="replace")))
def test_no_bytes_are_params(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(BadInput, match=r"params\.yaml"):
        load_params(tmp_path / "params.yaml")


valid = st.fixed_dictionaries(
    {
        "lora__r": st.integers(1, 1024),
        "lora__alpha": st.floats(1e-300, 1e300),
        "lora__dropout": st.floats(0, 1),
        "lora__target_modules": st.lists(texts.filter(len), min_size=1, max_size=3),
        "finetune__learning_rate": st.floats(1e-300, 1),
        "finetune__warmup_ratio": st.floats(0, 1, exclude_max=True),
        "finetune__seed": st.integers(0, 2**32 - 1),
        "data__train_rows": st.sampled_from(["all", "shortest_third"]) | st.integers(1),
        "model__name": texts.map(lambda text: f"./{text}"),
    }
)


NEXT_LINE = {"lora__target_modules": ["\x85"]}  # a line end to YAML 1.1, not to 1.2


@settings(max_examples=50)
@example(NEXT_LINE)
@given(valid)
def test_params_written_as_yaml_are_read_back(changes):
    params = params_or_refused(params_values(**changes))
    if params is not None:
        again = YAML(typ="safe").load(dump_yaml(params.model_dump()))
        assert parse_params(again, "params.yaml") == params


# numbers


@given(st.text(), st.text(), st.sampled_from(RULES))
def test_any_text_and_any_gold_are_read_without_an_error(text, gold, rule):
    found = extract(text, rule)
    if rule == "strict":
        assert (found is None) == (re.search(r"#### -?[0-9.,]", text) is None)
    if rule == "published":
        assert (found is None) == ("####" not in text)
    assert isinstance(is_correct(text, gold, rule), bool)


numbers = st.integers(-(10**12), 10**12)
written = st.tuples(numbers, st.sampled_from(["{}", "{:,}"])).map(lambda pair: pair[1].format(pair[0]))


@given(st.text("abc .\n<>=+*/0123456789$"), written, st.sampled_from(["", "\n"]), st.sampled_from(RULES))
def test_a_number_behind_the_mark_is_read_by_every_rule(before, number, end, rule):
    text = f"{before}\n#### {number}{end}"
    assert (extract(text, rule) or "").replace(",", "") == number.replace(",", "")
    assert is_correct(text, number, rule)
    assert is_correct(text, number.replace(",", ""), rule)


# guards

WORDS = ("safe", "unsafe\n", "Safety: Safe", "Safety: Unsafe", "Safety: ", "Controversial", "S1", "S99", "S\u0661")
MARKS = (",", "\n", " ", "Categories: ", "Violent", "Refusal: Yes", '"', ".", "\x1b[0m")
said = st.sampled_from([*WORDS, *MARKS])
answers = st.text() | st.lists(said | st.text(max_size=2)).map("".join)


@given(answers)
def test_llama_guard_says_safe_only_by_that_word_alone(text):
    reading = parse_llama_guard(text)
    assert reading.label in LABELS - {"controversial"}
    assert (reading.label == "safe") == (text.strip() == "safe")
    assert (reading.label == "unsafe") == bool(reading.categories)
    assert set(reading.categories) <= {f"S{number}" for number in range(1, 15)}


@given(answers)
def test_qwen3guard_says_safe_only_by_a_line_of_its_own_and_no_other(text):
    reading = parse_qwen3guard(text)
    lines = [line.strip() for line in text.split("\n")]
    assert reading.label in LABELS
    if reading.label == "safe":
        assert "Safety: Safe" in lines
        assert not {"Safety: Unsafe", "Safety: Controversial"} & set(lines)


pieces = st.text("ab \n", min_size=1, max_size=3)


@given(st.text("ab \n") | st.tuples(pieces, st.integers(1, 20)).map(lambda pair: pair[0] * pair[1]), st.data())
def test_white_space_does_not_decide_what_is_degenerate(text, data):
    spaces = st.sampled_from([" ", "\n", "\t ", "  \n"])
    other = "".join(data.draw(spaces) if part.isspace() else part for part in re.split(r"(\s+)", text))
    assert is_degenerate(text) == is_degenerate(other) == is_degenerate(f"  {text}\n")


# files


@one_folder
@given(st.binary() | texts.map(str.encode) | junk.map(lambda value: repr(value).encode(errors="replace")))
def test_any_bytes_are_rows_or_refused(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    for model in (Answer, Verdict):
        with pytest.raises(BadInput, match=r"rows\.jsonl"):
            read_jsonl(path, model)


anything = st.text(st.characters())  # lone surrogates, too
values = st.none() | st.booleans() | st.integers() | st.floats() | anything | st.lists(anything, max_size=2)
values |= anything.map("{}\n#### 1".format)


@one_folder
@given(st.dictionaries(st.sampled_from(["question", "answer", "level"]), values))
def test_any_json_is_problems_or_refused(tmp_path, row):
    data = data_from(tmp_path, train=json.dumps(row))
    try:
        (problem,) = load_problems(data, "train")
    except BadInput as error:
        assert "train" in str(error)
    else:
        assert (problem.question, problem.answer) == (row["question"], row["answer"])


@one_folder
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(sorted(HAZARDS)), max_size=7))
def test_any_line_is_prompts_or_refused(tmp_path, fields):
    line = ",".join(fields)
    try:
        prompts = load_hazards(data_from(tmp_path, hazards=f"{HEADER}{line}\n"))
    except BadInput as error:
        assert "hazards" in str(error)
    else:
        assert all(prompt.hazard in HAZARDS and prompt.id and prompt.text for prompt in prompts)


@one_folder
@given(st.binary() | texts.map(str.encode))
def test_any_bytes_are_prompts_or_refused(tmp_path, content):
    with pytest.raises(BadInput, match="hazards"):
        load_hazards(data_from(tmp_path, hazards=content))


ids = st.text(min_size=1, max_size=12)
kinds = st.tuples(st.just("math"), st.booleans(), st.none()) | st.tuples(
    st.just("hazards"), st.booleans(), st.booleans()
)
kinds |= st.tuples(st.just("benign"), st.none(), st.booleans())


@given(st.lists(st.tuples(ids, kinds, st.sampled_from(sorted(HAZARDS)), st.sampled_from(PROBLEMS)), min_size=1))
def test_outcomes_written_are_read_back(drawn):
    rows = {}
    for name, (kind, good, refused), hazard, problem in drawn:
        for subject in ("base", "tuned"):
            of = "" if kind == "math" else hazard
            rows[subject, kind, name] = Outcome(subject, kind, name, of, good, refused, problem, prompt_key(kind))
    assert from_csv(to_csv(list(rows.values())), "outcomes.csv") == list(rows.values())


@given(st.text())
def test_any_text_is_outcomes_or_refused(text):
    with pytest.raises(BadInput, match=r"outcomes\.csv"):
        from_csv(text, "outcomes.csv")


# display


@given(texts)
def test_quoted_text_is_the_text_to_yaml_and_to_python(text):
    assert YAML(typ="safe").load(f"key: {quoted(text)}\n")["key"] == ast.literal_eval(quoted(text)) == text


@given(anything)
def test_no_text_turns_a_display_or_a_spreadsheet(text):
    shown = visible(text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    inline = code(text)
    assert "\n" not in inline
    fence = re.match("`+", inline).group(0)
    assert fence not in inline[len(fence) : -len(fence)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerow([cell(text)])
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert row == [cell(text)]
    assert row[0].lstrip()[:1] not in ("=", "+", "-", "@")
