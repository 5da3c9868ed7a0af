"""prepare: a source of data → data/prepared/{train,test,shots,hazards,benign,replay,skills,risks}.jsonl.

    python -m stages.prepare

Reads the source named by data.source, checks every row and every pinned sha256, sets the example problems aside, and
takes the subsets that params.yaml asks for; `skills` and `risks` are the reader's own sets. Refuses here what a later
stage would refuse after hours: training rows or examples that are test questions, prompts that share an id, a judge
that cannot be had. Takes a second; with source: hub it downloads about 5 MB.
"""

import shutil
import sys
import time

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.cost import write_cost
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_sums, write_text
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import load_params
from stages.lib.base.rows import write_jsonl
from stages.lib.base.sections import SHOT_POOL
from stages.lib.data.overlaps import check_disjoint, repeated
from stages.lib.data.own import load_own
from stages.lib.data.replay import load_replay
from stages.lib.data.sources import load_benign, load_hazards, load_problems, place
from stages.lib.data.subsets import choose_training, first_rows, stratified
from stages.lib.fetch import hub
from stages.lib.model.sources import check_present


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    data = params.data
    check_model("judge.model", params.judge.model, params.judge.revision)
    check_model("base.model", params.base.model, params.base.revision)
    start = time.perf_counter()
    problems = load_problems(data, "train")
    skills, risks, places = load_own(params.sets, data.set_rows)
    train, shots = choose_training(problems, data.train_rows, SHOT_POOL, data.seed)
    files = {
        "train": train,
        "test": first_rows(load_problems(data, "test"), data.test_rows, "test"),
        "shots": shots,
        "hazards": stratified(load_hazards(data), data.hazard_rows, data.seed, "hazard"),
        "benign": stratified(load_benign(data), data.benign_rows, data.seed, "benign"),
        "replay": load_replay(params.finetune, data.seed),
        "skills": skills,
        "risks": risks,
    }

    def where(name: str, row: str) -> str:
        return places[row] if name in ("skills", "risks") else place(data, name, row)

    check_disjoint({**files, "train": [*train, *shots]}, where)
    for name, rows in {**files, "train": problems}.items():
        if again := repeated(rows):
            such = f"{where(name, again[0][0])} what {where(name, again[0][1])} asks"
            print(
                f"prepare: {len(again)} of {len(rows)} {name} rows ask what an earlier one asks, as {such}; a question "
                "counts as often as it stands there",
                file=sys.stderr,
            )
    shutil.rmtree(PREPARED, ignore_errors=True)
    for name, rows in files.items():
        if rows:
            write_jsonl(PREPARED / f"{name}.jsonl", rows)
        else:  # nothing to replay, no set of one's own; DVC warns of a file without a byte
            write_text(PREPARED / f"{name}.jsonl", "\n")
    write_sums(PREPARED)
    write_cost("prepare", time.perf_counter() - start, sum(map(len, files.values())), None)
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in files.items() if rows)
    print(f"prepare: {counts} rows from source {data.source}")


def check_model(parameter: str, name: str | None, revision: str | None) -> None:
    """Refuse a model that a later stage uses and that cannot be had, before something waits for it (BadInput)."""
    try:
        if name:
            check_present(name)
        if name and revision:
            hub.check_model(name, revision)
    except BadInput as error:
        raise BadInput(f"{parameter}: {error}") from None


if __name__ == "__main__":
    run(main)
