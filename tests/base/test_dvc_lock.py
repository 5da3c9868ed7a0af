"""dvc.lock, read once for all."""

import pytest

from stages.lib.base.dvc_lock import parse_lock, recorded
from stages.lib.base.errors import BadInput

LOCK = """
schema: '2.0'
stages:
  prepare:
    cmd: python -m stages.prepare
    deps:
    - path: data/embedded
      md5: a1.dir
    outs:
    - path: data/prepared
      md5: b2.dir
  report:
    cmd: python -m stages.report
    deps:
    - path: data/prepared
      md5: older
    outs:
    - path: report/report.html
"""


def test_what_was_written_and_what_was_read_are_told_apart():
    lock = parse_lock(LOCK, "dvc.lock")
    assert recorded(lock, "outs") == {"data/prepared": "b2.dir", "report/report.html": ""}
    assert recorded(lock, "deps", "outs").keys() == {"data/embedded", "data/prepared", "report/report.html"}


@pytest.mark.parametrize("text", ["", "stages: 3", "[1]", "stages: [", "schema: '2.0'"])
def test_what_is_no_lock_is_one_message(text):
    with pytest.raises(BadInput, match=r"^main: dvc\.lock: "):
        parse_lock(text, "main: dvc.lock")
