"""How often the intervals and decisions of stages/lib/measure are right where the truth is known.

    python -m tools.simulate [--draws 2000] [TABLE ...]

Prints the Markdown tables of docs/STATISTICS.md, in percent, from a fixed seed: all of them in a quarter of an hour on
one CPU core.
"""

import numpy as np

from stages.lib.base.cli import parser, run
from stages.lib.report.wording import markdown_table
from tools.simulate import decisions, labels, samples

TABLES = {
    table.__name__: table
    for table in (
        *(decisions.paired, decisions.worst, decisions.curve, decisions.tested),
        *(decisions.limits, decisions.wanted, decisions.shown),
        *(samples.in_groups, samples.trainings, samples.single_trainings, labels.judges, labels.pooled),
    )
}


def main() -> None:
    top = parser(__doc__)
    top.add_argument("tables", nargs="*", metavar="TABLE", help=f"some of: {', '.join(TABLES)}")
    top.add_argument("--draws", type=int, default=2000)
    chosen = top.parse_args()
    if unknown := set(chosen.tables) - set(TABLES):
        top.error(f"found {', '.join(sorted(unknown))}, not some of {', '.join(TABLES)}")
    for name in chosen.tables or TABLES:
        print(f"{name}\n\n{markdown_table(TABLES[name](chosen.draws, np.random.default_rng(1126)))}\n", flush=True)


if __name__ == "__main__":
    run(main)
