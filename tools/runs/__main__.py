from stages.lib.base.cli import run
from tools.runs.command import main

run(main)
