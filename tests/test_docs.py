"""What README.md and docs/ show is what the committed files say, and what they name is there."""

import json
import math
import re
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_json, write_text
from stages.lib.base.params import load_params
from stages.lib.measure.decide import within
from stages.lib.measure.outcomes import from_csv
from stages.lib.measure.power import prompts_wanted
from stages.lib.report.published import load_study, resolve
from stages.lib.report.tried import read_tried
from stages.lib.report.wording import markdown_table
from tests.conftest import ROOT, params_values
from tools import mitigations
from tools.review import command, page
from tools.review.comparison import compare
from tools.review.gate import rulings
from tools.review.revisions import Revision, Texts, flat
from tools.runs import slurm

LINES = 185  # of README.md, at most
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
REVIEWS = ("larger-rank", "run2-rate")
# files that no stage lists among its outputs
WRITTEN = (
    *("review/review.md", "review/review.html", "review/plane.png", "metrics/runs/", ".dvc/tmp/exps/standalone/"),
    "metrics/panel.json",  # by `make panel`
    "models/tuned/training.json",  # of a training in which the untuned model had a say
)
ENDINGS = (".csv", ".html", ".json", ".jsonl", ".lock", ".md", ".png", ".py", ".toml", ".txt", ".yaml", ".yml")


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def in_one_line(path: str) -> str:
    """A page's text without its line ends, to look for sentences in."""
    return " ".join(read(path).split())


def without_blocks(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_in(text: str) -> str:
    """The code of a page: its blocks, and what stands in backticks."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", without_blocks(text))])


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a text, cell by cell."""
    lines = [line.removeprefix("> ") for line in text.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


# what the pages name


def test_the_readme_is_short_and_links_each_page_once():
    assert len(read("README.md").splitlines()) <= LINES
    links = Counter(re.findall(r"\]\((docs/\w+\.md)\)", read("README.md")))
    assert links == dict.fromkeys(PAGES[1:], 1)


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Every file of the repository, what the stages and tools write, and all folders (with a slash at the end)."""
    ask = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(ask, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    files = {name for name in found if name and (ROOT / name).is_file()} | set(WRITTEN)
    for stage in YAML(typ="safe").load(read("dvc.yaml"))["stages"].values():
        work = stage.get("do", stage)
        for out in [out for kind in ("outs", "metrics", "plots") for out in work.get(kind, [])]:
            name = out if isinstance(out, str) else next(iter(out))
            for subject in ("base", "tuned"):
                files.add(name.replace("${item.subject}", subject).replace("${key}", subject))
    files |= {"models/tuned/", "data/prepared/"}
    return files | {f"{parent}/" for name in files for parent in Path(name).parents if parent != Path()}


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page, known):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_blocks(read(page)))
    assert targets
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        local = path.resolve().relative_to(ROOT.resolve()).as_posix()
        assert {local, f"{local}/"} & known, target
        if anchor:
            assert anchor in headings(read(local)), target


def named_files(text: str, known: set[str]) -> set[str]:
    """What stands in backticks and looks like a file or folder of this repository, {a,b} written out."""
    tops = {name.split("/")[0] for name in known if "/" in name}
    found = set()
    for name in re.findall(r"`([\w.{},<>/*-]+)`", without_blocks(text)):
        name = name.partition("<")[0]
        if ("/" in name and name.split("/")[0] in tops) or ("/" not in name and name.endswith(ENDINGS)):
            choice = re.search(r"\{(.+?)\}", name)
            each = choice.group(1).split(",") if choice else [""]
            found |= {name.replace(choice.group(0), part) if choice else name for part in each}
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_is_there(page, known):
    names = named_files(read(page), known)
    assert names
    last = {Path(name).name for name in known if not name.endswith("/")}
    for name in names:
        there = name in last if "/" not in name else any(fnmatch(each, name) for each in known)
        assert there or f"{name}/" in known, name


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_is_there(page):
    code = code_in(read(page))
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets
    for module in re.findall(r"python -m ((?:stages|tools|bench)[\w.]*)", code):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    assert set(re.findall(r"-S ([\w.]+)=", code)) <= set(flat(params_values()))


def test_every_parameter_is_explained_once():
    table = rows(read("docs/PARAMETERS.md").partition("\n## ")[0])
    names = [name for row in table for name in re.findall(r"`([\w.]+)`", row[0])]
    assert sorted(names) == sorted([*flat(params_values()), "sets.NAME"])  # {} in params.yaml


# what the pages show


def test_the_readme_shows_the_default_run_as_it_was_measured():
    measured = ("math accuracy", "safety rate", "over-refusal")
    found = [row for row in rows(read("report/report.md")) if row[0].startswith(measured)]
    assert len(found) == 3
    assert all(row in rows(read("README.md")) for row in found)


def test_the_readme_says_in_words_what_was_measured():
    detail, text = json.loads(read("metrics/detail.json")), in_one_line("README.md")
    rules = {row["rule"]: row for row in detail["extraction"]}
    (safety,), (kept,), (refused,) = detail["safety"], detail["retention"], detail["over_refusal"]
    base, tuned = detail["problems"]

    def count(row: Mapping[str, Any], name: str) -> int:
        return round(row[name] * row["n"])

    strict, flexible = rules["strict"], rules["flexible"]
    low, high = math.floor(100 * safety["change_low"]), math.ceil(100 * safety["change_high"])
    cut_off = (round(100 * each["truncated_responses"]) for each in (base, tuned))
    for said in (
        f"writes `####` before {count(strict, 'base')} right answers of {strict['n']} and gives "
        f"{count(flexible, 'base')} by the flexible reading",
        f"brought {strict['gained']} questions right and lost {strict['lost']}, by each of the three rules more than",
        "One training says so.",
        f"{count(safety, 'base')} of {safety['n']} hazard prompts were answered safely before, "
        f"{count(safety, 'tuned')} after, with {safety['lost']} lost and {safety['gained']} won; a change between "
        f"{low} and {high:+} points would look like this",
        f"Of the {kept['n']}, the tuned model still answers {100 * kept['value']:.0f} % safely",
        f"refuses {count(refused, 'tuned')} harmless prompts of {refused['n']}, as the untuned one did",
        "A quarter of both models' responses came to repeat themselves",
        "{} and {} % were cut off".format(*cut_off),
    ):
        assert said in text
    assert all(row["p"] < 0.05 and row["change"] > 0 for row in rules.values())
    assert refused["base"] == refused["tuned"]
    assert all(0.2 < each["repetitive"] < 0.3 for each in (base, tuned))


def test_the_readme_gives_the_size_of_the_default_run():
    text, data = in_one_line("README.md"), params_values()["data"]
    rows_of = {name: data[f"{name}_rows"] for name in ("train", "test", "hazard", "benign")}
    sizes = "{train} training rows, {test} questions, {hazard} hazard prompts, {benign} harmless ones"
    assert sizes.format(**rows_of) in text
    updates = read("metrics/loss.csv").splitlines()[-1].split(",")[0]
    assert f"{updates} updates on {data['train_rows']} problems of other templates" in text
    questions = [json.loads(line) for line in read(data["files"]["test"]).splitlines()[: data["test_rows"]]]
    assert max(Counter(row["group"] for row in questions).values()) == 2
    assert "At most two share one." in text
    most = max(stage["peak_memory_mib"] for stage in json.loads(read("metrics/cost.json"))) / 1024
    (shown,) = re.findall(r"No stage takes more than ([\d.]+) GiB", text)
    assert most <= float(shown) <= most + 1


def test_a_wrong_value_is_refused_as_shown(tmp_path, monkeypatch):
    text = read("params.yaml")
    assert "\n  r: 8\n" in text
    (tmp_path / "params.yaml").write_text(text.replace("\n  r: 8\n", "\n  r: 0\n"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as refused:
        load_params()
    assert f"$ dvc exp run -S lora.r=0\nerror: {refused.value}\n```" in read("docs/PARAMETERS.md")


def test_the_study_says_whether_results_are_kept():
    kept = list((ROOT / "metrics/runs").glob("*/run*.json"))
    assert ("No results of the ten are kept here yet." in in_one_line("docs/STUDY.md")) is not bool(kept)


def test_the_page_of_ways_shows_what_is_kept_of_them():
    study = load_study(ROOT / "runs.yaml")
    tried = read_tried(study, "laptop", ROOT / "metrics/runs")
    ways, text = tried.ways(study), read("docs/FORGETTING.md")
    assert ("No results of it are kept here yet." in text) is not bool(ways)
    tables = [line for line in mitigations.page(study, tried, ways).splitlines() if line.startswith("|")]
    assert not ways or set(tables) <= set(text.splitlines())
    for way in study.ways:
        assert not way.plain or set(way.overrides) <= {"finetune.learning_rate", "finetune.epochs"}
        assert way.plain or all(f"-S {name}=" in text for name in way.overrides if name != "data.unsolved"), way.name


def test_the_status_shown_is_one_that_slurm_can_give(tmp_path, monkeypatch):
    """Four runs of the embedded profile as the queue and their unfinished work would have it."""
    study = load_study(ROOT / "runs.yaml")
    tune = resolve(params_values(), study.overrides(study.run("run05"), "embedded"), "runs.yaml")
    updates = tune.data.train_rows * tune.finetune.epochs / (tune.finetune.batch_size * tune.finetune.accumulation)
    monkeypatch.chdir(tmp_path)
    for run, stage in (("run02", "gen_math-tuned"), ("run05", "finetune")):
        write_text(slurm.work("embedded", run) / stage / "0123/pid", "1")
    trained = slurm.work("embedded", "run05") / "finetune/0123/checkpoint-20"
    write_json(trained / "trainer_state.json", {"global_step": 20, "max_steps": round(updates)})
    waiting, busy = slurm.Queued("PENDING", "Resources", ""), {"run02": "n1", "run05": "n2"}
    sweep, queue = {}, {}
    for run in ("run02", "run03", "run05", "run07"):
        sweep[run] = slurm.Submitted(job="7", index=int(run[3:]), shared="6", commit="0" * 40)
        queue["7", str(int(run[3:]))] = slurm.Queued("RUNNING", "None", busy[run]) if run in busy else waiting
    for name, value in {"read_sweep": lambda _: sweep, "read_queue": lambda: queue}.items():
        monkeypatch.setattr(slurm, name, value)
    monkeypatch.setattr(slurm, "is_measured", lambda *_: False)
    write_text(slurm.FOLDER / f"runs-{'0' * 40}.yaml", read("runs.yaml"))  # as `submit` puts it aside
    table = markdown_table(slurm.status(study, "embedded"))
    assert f"$ python -m tools.runs status\n{table}\n```" in read("docs/RUNNING.md")


# the two worked reviews


def default_run() -> Revision:
    """The default run that the worked reviews were made from, on the same processor as theirs."""
    folder = "docs/reviews/default"
    outcomes = from_csv(read(f"{folder}/outcomes.csv"), folder)
    return Revision("main", "", flat(params_values()), json.loads(read(f"{folder}/headline.json")), outcomes, {})


def shown_review(name: str) -> list[str]:
    """The lines of a worked review in docs/REVIEWING.md."""
    quoted = re.findall(r"(?:^>.*\n)+", read("docs/REVIEWING.md"), flags=re.MULTILINE)
    (found,) = [text for text in quoted if f"to `{name} (" in text.partition("\n")[0]]
    return [line.removeprefix(">").removeprefix(" ") for line in found.splitlines()]


def made_review(before: Revision, after: Revision, shown: Sequence[str]) -> list[str]:
    """The review of two revisions by today's code, its heading as deep as in the page, under the names shown there."""
    names = re.findall(r"`([\w-]+) \((\w{7})\)`", shown[0])
    named = [replace(each, name=name, commit=at) for each, (name, at) in zip((before, after), names, strict=True)]
    comparison, texts = compare(*named), Texts({}, {}, {})
    facts = command.contents(comparison, rulings(comparison), "#two-worked-reviews", (texts, texts))
    text = page.markdown({"mark": "", **facts})
    return text.strip().replace("## ", "#### ", 1).splitlines()


def tuned_to(name: str) -> dict[str, Any]:
    """The parameters of a worked review's run: the default run's, but for the one that its command sets."""
    (said,) = re.findall(rf"-c {name} && dvc exp run -S (\S+) &&", read("docs/REVIEWING.md"))
    parameter, _, value = said.partition("=")
    changed = {**flat(params_values()), parameter: YAML(typ="safe").load(value)}
    assert set(changed) == set(flat(params_values()))
    return changed


def kept_run(name: str) -> Revision:
    """A worked review's run, from docs/reviews/NAME/."""
    folder = f"docs/reviews/{name}"
    params = flat(YAML(typ="safe").load(read(f"{folder}/params.yaml")))
    assert params == tuned_to(name)
    outcomes = from_csv(read(f"{folder}/outcomes.csv"), folder)
    return Revision(name, "", params, json.loads(read(f"{folder}/headline.json")), outcomes, {})


@pytest.mark.parametrize("name", REVIEWS)
def test_a_worked_review_is_what_its_run_gives(name):
    shown = shown_review(name)
    assert made_review(default_run(), kept_run(name), shown) == shown


def test_the_readme_repeats_the_first_reviews_verdict():
    verdict = shown_review("larger-rank")[2].strip("*")
    assert f'"{verdict}"' in in_one_line("README.md")


def test_the_text_around_the_reviews_counts_as_they_do():
    text = in_one_line("docs/REVIEWING.md")
    first, second = ("\n".join(shown_review(name)) for name in REVIEWS)
    assert "[2 safe to unsafe]" in first
    assert "[7 unsafe to safe]" in first
    assert "Seven hazard prompts are answered safely that were not before, and two no longer: on 112 prompts" in text
    flips = [int(count) for count in re.findall(r"\[(\d+) ", second)]
    assert flips[0] == flips[1]
    one_way = f"Of 80 questions {sum(flips[:2])} flip, as many one way as the other"
    assert f"{one_way}; of 112 hazard prompts {sum(flips[2:4])}." in text
    for shown, of in ((first, "math accuracy"), (first, "safety rate"), (second, "safety rate")):
        (row,) = [row for row in rows(shown) if row[0] == of]
        assert row[-1].startswith("no evidence either way")
    assert "neither safety rate can be told from the other here, nor either from the untuned model's." in text
    runs = (default_run(), *map(kept_run, REVIEWS))
    assert all(run.headline["safety"]["p"] > 0.05 for run in runs)
    (example,) = re.findall(r'"(such a set shows [\d.]+ points in four of five tries)" is the change', text)
    assert example in first
    assert "kept" in first
    assert not {"broken", "undecided"} & {row[2] for row in rows(first) if len(row) == 4}


def test_the_margins_and_sizes_that_the_pages_name_are_the_default_ones():
    """And what they are said to show stands in the tables of docs/STATISTICS.md."""
    review, data, text = params_values()["review"], params_values()["data"], in_one_line("docs/REVIEWING.md")
    assert review["max_safety_drop"] == review["max_accuracy_drop"] == 0.1
    curve = {(row[0], row[1]): row for row in rows(read("docs/STATISTICS.md")) if len(row) == 10}
    for n, said in ((data["hazard_rows"], "74 % of tries are kept"), (data["test_rows"], "it is 61 %")):
        assert f"{float(curve[str(n), '0'][6]):.0f} %" in said
        assert said in text
    assert float(curve[str(data["hazard_rows"]), "10"][6]) < 5.5
    assert f"kept in {float(curve[str(data['hazard_rows']), '0'][3]):.0f} % there, and wants" in text
    assert prompts_wanted(0.2, 0.05) == 495
    assert "495" in in_one_line("README.md")
    none, one = ([n < many for n in range(data["hazard_rows"])] for many in (0, 1))
    assert [within(of, review["max_unparsed"]).verdict for of in (none, one)] == ["kept", "undecided"]
    some, more = ([n < many for n in range(data["benign_rows"])] for many in (13, 14))
    assert [within(of, review["max_over_refusal"]).verdict for of in (some, more)] == ["kept", "undecided"]


def test_the_diff_shown_is_that_of_the_first_review():
    table = [row for row in rows(read("docs/REVIEWING.md")) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", row[0])]
    head, after = flat(default_run().headline), flat(kept_run("larger-rank").headline)
    shown = {row[0]: [float(value) for value in row[1:]] for row in table if row[0] in after and len(row) == 4}
    assert set(shown) == {name for name, value in after.items() if abs(value - head[name]) > 1e-6}
    for name, (old, new, change) in shown.items():
        assert (old, new) == (round(head[name], 3), round(after[name], 3)), name
        assert change == pytest.approx(after[name] - head[name], abs=0.00051), name
