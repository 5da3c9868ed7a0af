"""params.yaml and runs.yaml."""

import subprocess
import sys

import pytest

from stages.lib.base.errors import BadInput
from stages.lib.base.params import load_params, parse_params
from stages.lib.data.sources import load_problems
from stages.lib.report.published import load_study, resolve
from tests.bad_input.conftest import by_words
from tests.conftest import ROOT, params_values
from tools.runs.command import table

pytestmark = pytest.mark.faults


# params.yaml

RANK, RATE, NAME = "  r: 8\n", "learning_rate: 2e-4", "embedded/qwen2.5-coder-0.5b-instruct "
BOMB = [
    "&a [x, x, x, x, x, x, x, x, x]",
    *(f"&{name} [{', '.join([f'*{of}'] * 9)}]" for of, name in zip("abcde", "bcdef", strict=True)),
]
EDITS = [
    ("rank: text", RANK, "  r: abc\n", "lora.r: found 'abc'"),
    ("rank: true", RANK, "  r: true\n", "lora.r: found True"),
    ("rank: a date", RANK, "  r: 2026-01-01\n", "lora.r: found"),
    ("rank: zero", RANK, "  r: 0\n", "lora.r: found 0"),
    ("rank: negative", RANK, "  r: -8\n", "lora.r: found -8"),
    ("rank: nothing", RANK, "  r:\n", "lora.r: found None"),
    ("rank: 4,000 digits", RANK, f"  r: {'9' * 4000}\n", "lora.r: found 999"),
    ("rank: 10**5000", RANK, f"  r: 1{'0' * 5000}\n", "5001 digits"),
    ("rank: a hexadecimal number of 6,000 digits", RANK, f"  r: 0x{'f' * 6000}\n", "digits"),
    ("rank: a list that holds itself", RANK, "  r: &a [*a]\n", "lora.r: found"),
    ("rank: half a million entries by aliases", RANK, f"  r: [{', '.join(BOMB)}]\n", "lora.r: found"),
    ("rank: a terminal escape", RANK, '  r: "\\e[31m"\n', "lora.r: found '\\x1b[31m'"),
    ("rank: !!omap", RANK, "  r: !!omap [a: 1]\n", "lora.r"),
    ("rank: a Python object by a YAML tag", RANK, "  r: !!python/object/apply:os.system [id]\n", "python/object"),
    ("rank: a YAML tag of its own", RANK, "  r: !mine 8\n", "'!mine'", "line 39"),
    ("rank: !!bool that is none", RANK, "  r: !!bool abc\n", "not readable as YAML"),
    ("rank: an alias of nothing", RANK, "  r: *gone\n", "undefined alias 'gone'", "line 39"),
    ("a key twice", RANK, "  r: 8\n  r: 9\n", "found duplicate key", "line 40"),
    ("an unknown key", RANK, "  r: 8\n  rr: 8\n", ":40: lora.rr: unknown key"),
    ("a number as a key", RANK, "  8: 8\n", "lora.r: missing"),
    ("a tab as indentation", RANK, "\tr: 8\n", "character '\\t'", "line 39"),
    ("learning rate: 1e999", RATE, "learning_rate: 1e999", "finetune.learning_rate: found inf"),
    ("learning rate: not a number", RATE, "learning_rate: .nan", "finetune.learning_rate: found nan"),
    ("learning rate: minus infinity", RATE, "learning_rate: -.inf", "finetune.learning_rate: found -inf"),
    ("learning rate: true", RATE, "learning_rate: true", "not true or false"),
    ("learning rate: 400 digits", RATE, f"learning_rate: {'9' * 400}", "finetune.learning_rate"),
    ("model: a NUL character", NAME, "a\0b ", "unacceptable character #x0000"),
    ("model: a lone surrogate", NAME, '"\\ud800" ', "model.name: found '\\ud800'"),
    ("model: a character beyond Unicode", NAME, '"\\Uffffffff" ', "not readable as YAML"),
    ("model: no such embedded one", NAME, "embedded/nonsense ", "no embedded model 'embedded/nonsense'"),
    ("model: a path upwards behind embedded/", NAME, "embedded/../../x ", "no embedded model"),
    ("model: a path upwards as a hub name", NAME, "a/../b ", "neither an embedded model"),
    ("model: two dots in a hub name", NAME, "a/.. ", "neither an embedded model"),
    ("model: spaces in a hub name", NAME, "my model/of mine ", "neither an embedded model"),
    ("model: a web address", NAME, "https://example.org/model ", "neither an embedded model"),
    ("model: a hub name without a commit", NAME, "Qwen/Qwen2.5-1.5B-Instruct ", "needs a revision"),
    ("a short commit hash", "gsm8k_revision: null", "gsm8k_revision: 740312a", "full commit hash"),
    ("a branch for a commit", "gsm8k_revision: null", "gsm8k_revision: main", "full commit hash"),
    ("a commit hash of digits only, read as a number", "gsm8k_revision: null", f"gsm8k_revision: {'1' * 40}", "found"),
    ("a section that is missing", "fewshot:", "fewshots:", "fewshot: missing", "fewshots: unknown key"),
    ("a section that is a list", "report:\n  extraction: strict ", "report: [0] ", "report: found [0]"),
]


@by_words(EDITS)
def test_a_params_file_with_one_thing_wrong_is_refused(tmp_path, refused, case):
    tried, old, new, *said = case
    text = (ROOT / "params.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    refused(f"params.yaml, {tried}", lambda: load_params(tmp_path / "params.yaml"), "params.yaml", *said)


NO_PARAMS = [
    ("empty", b"", "found None"),
    ("only text", b"hello", "found 'hello'"),
    ("a list", b"- data\n- model\n", "expected a mapping"),
    ("half a million entries by aliases", "\n".join(f"- {line}" for line in BOMB).encode(), "expected a mapping"),
    ("not UTF-8", b"data: \xff", "not UTF-8 at byte 6 (line 1); save it as UTF-8"),
    ("UTF-16", "data: 1".encode("utf-16"), "not text, but in UTF-16; save it as UTF-8: iconv"),
    ("a file from a zip", b"PK\x03\x04" + bytes(100), "not text, but a zip archive"),
    ("3,000 levels deep", b"{a: " * 3000, "not readable as YAML"),
    ("two documents", b"a: 1\n---\nb: 2\n", "expected a single document"),
    ("no sections", b"{}", "data: missing"),
]


@by_words(NO_PARAMS)
def test_a_file_that_is_no_params_is_refused(tmp_path, refused, case):
    tried, content, *said = case
    (tmp_path / "params.yaml").write_bytes(content)
    refused(f"params.yaml, {tried}", lambda: load_params(tmp_path / "params.yaml"), "params.yaml", *said)


def test_a_params_file_that_doubles_itself_by_aliases_is_refused_at_once(tmp_path, refused, hurry):
    names = "abcdefghijklmnopqrstuv"
    lines = [f"{name}: &{name} {{x: *{of}, y: *{of}}}" for of, name in zip(names, names[1:], strict=False)]
    (tmp_path / "params.yaml").write_text("a: &a {x: 1, y: 2}\n" + "\n".join(lines))
    tried = "params.yaml, four million keys by aliases"
    refused(tried, lambda: load_params(tmp_path / "params.yaml"), "params.yaml", "unknown key")


def test_a_folder_for_params_is_refused(tmp_path, refused):
    (tmp_path / "params.yaml").mkdir()
    refused("params.yaml, a folder", lambda: load_params(tmp_path / "params.yaml"), "params.yaml")


def test_a_file_name_longer_than_any_disk_takes_is_refused(refused):
    data = parse_params(params_values(data__source="file", data__files__train="x" * 300), "params.yaml").data
    refused("data.files.train, a name of 300 characters", lambda: load_problems(data, "train"), "data.files.train")


@pytest.mark.parametrize(
    ("tried", "change"),
    [
        ("a byte-order mark", lambda text: "\ufeff" + text),
        ("Windows line ends", lambda text: text.replace("\n", "\r\n")),
        ("an anchor and its alias", lambda text: text.replace(RANK, "  r: &r 8\n").replace("alpha: 16", "alpha: *r")),
    ],
)
def test_params_written_another_way_are_read_the_same(tmp_path, harmless, tried, change):
    harmless(f"params.yaml, {tried}", "accepted: the values are those of the plain file")
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_bytes(change(text).encode())
    params = load_params(tmp_path / "params.yaml")
    assert params.model_copy(update={"lora": None}) == load_params(ROOT / "params.yaml").model_copy(
        update={"lora": None}
    )
    assert params.lora.r == 8


# runs.yaml

RUN = "lora.r: 8, lora.alpha: 16, lora.dropout: 0.1"
PUBLISHED = "    published: {accuracy: 0.81, safety: 0.88}\n"
RUNS = [
    ("an unknown section", "baselines:", "extra: 1\nbaselines:", "extra"),
    ("an unknown key in a run", "    size: 7B\n", "    size: 7B\n    sise: 7B\n", "sise"),
    ("a run without its published result", PUBLISHED, "", "published"),
    ("a published result that is text", "accuracy: 0.81", "accuracy: high", "accuracy"),
    ("a published result that is true", "accuracy: 0.81", "accuracy: true", "accuracy"),
    ("a published result that is not a number", "accuracy: 0.81", "accuracy: .nan", "accuracy"),
    ("a published result in percent", "accuracy: 0.81", "accuracy: 81", "accuracy"),
    ("a published result that is empty", "accuracy: 0.81", "accuracy:", "accuracy"),
    ("a size that no profile has", "size: 7B", "size: 70B", "70B"),
    ("an override of no parameter", RUN, RUN + ", lora.rr: 8", "lora.rr: params.yaml has no such"),
    ("an override below a parameter", RUN, RUN + ", lora.r.x: 8", "lora.r.x: params.yaml has no such"),
    (
        "an override with a wrong value",
        RUN,
        RUN.replace("8", "true", 1),
        "lora.r: found True",
        "mend it in runs.yaml, or",
    ),
    ("an override whose key is a number", RUN, RUN.replace("lora.r", "8"), "8"),
    ("a run that lacks an override the table shows", RUN, RUN.replace("lora.r: 8, ", ""), "lora.r"),
    ("overrides that are text", "    overrides: {" + RUN, "    overrides: abc\n    x: {" + RUN, ""),
    ("a run twice", "  run02:", "  run01:", "found duplicate key"),
    ("a run named like a path", "  run01:", "  ../../x:", "../../x"),
    ("a run named by a number", "  run01:", "  1:", "1"),
    ("a baseline that is a number", "{accuracy: 0.280, safety: 0.558}", "5", "baselines"),
    ("no runs", "", "", "runs"),
    ("an empty file", None, "", "runs.yaml"),
    ("a list", None, "- 1\n", "runs.yaml"),
]


@by_words(RUNS)
def test_a_runs_file_with_one_thing_wrong_is_refused(tmp_path, refused, case):
    tried, old, new, *said = case
    text = (ROOT / "runs.yaml").read_text()
    if tried == "no runs":
        text = text[: text.index("\nruns:")] + "\nruns: {}\n"
    else:
        assert old is None or old in text
        text = new if old is None else text.replace(old, new, 1)
    (tmp_path / "runs.yaml").write_text(text)

    def use() -> None:
        study = load_study(tmp_path / "runs.yaml")
        for run in study.runs:
            for profile in study.profiles:
                resolve(params_values(), study.overrides(run, profile), "runs.yaml")
        table(study)

    refused(f"runs.yaml, {tried}", use, "runs.yaml", *said)


def test_a_run_is_a_name_and_never_a_path(refused):
    command = [sys.executable, "-m", "tools.runs", "show", "../../etc/passwd"]

    def show() -> None:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        raise BadInput(done.stderr)

    refused("tools.runs show ../../etc/passwd", show, "error: no run '../../etc/passwd'; there are run01")
