from stages.lib.base.cli import run
from tools.review.command import main

run(main)
