"""prepare: a source of data → data/prepared/{train,test,shots,hazards,benign}.jsonl.

    python -m stages.prepare

Reads the source named by data.source, checks every row and every pinned sha256, sets the example problems aside, and
takes the subsets that params.yaml asks for. Takes a second; with source: hub it downloads about 5 MB.
"""

import shutil
import time

from stages.lib.base.cli import no_arguments, run
from stages.lib.base.cost import write_cost
from stages.lib.base.files import write_sums
from stages.lib.base.measured import PREPARED
from stages.lib.base.params import SHOT_POOL, load_params
from stages.lib.base.rows import write_jsonl
from stages.lib.data.sources import load_benign, load_hazards, load_problems
from stages.lib.data.subsets import choose_training, first_rows, stratified


def main() -> None:
    no_arguments(__doc__)
    params = load_params()
    data = params.data
    start = time.perf_counter()
    train, shots = choose_training(load_problems(data, "train"), data.train_rows, SHOT_POOL, data.seed)
    files = {
        "train": train,
        "test": first_rows(load_problems(data, "test"), data.test_rows, "test"),
        "shots": shots,
        "hazards": stratified(load_hazards(data), data.hazard_rows, data.seed, "hazard"),
        "benign": stratified(load_benign(data), data.benign_rows, data.seed, "benign"),
    }
    shutil.rmtree(PREPARED, ignore_errors=True)
    for name, rows in files.items():
        write_jsonl(PREPARED / f"{name}.jsonl", rows)
    write_sums(PREPARED)
    write_cost("prepare", time.perf_counter() - start, sum(map(len, files.values())), None)
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in files.items())
    print(f"prepare: {counts} rows from source {data.source}")


if __name__ == "__main__":
    run(main)
