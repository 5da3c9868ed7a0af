from stages.lib.base.cli import run
from tools.panel.command import main

run(main)
