"""What is kept with answers: how they were made, and a thought that the prompt had opened."""

import shutil
import sys

import pytest

from stages import gen_math, gen_safety, prepare
from stages.lib.base.files import sha256_text
from stages.lib.base.made import differences, read_made
from stages.lib.base.measured import generated
from stages.lib.base.rows import Answer, read_jsonl
from stages.lib.prompts.thinking import spoken
from tests.conftest import TINY, write_params
from tests.prompts.test_chat import CHATML, QWEN3_THINKING

FEW = {"data__train_rows": 2, "data__test_rows": 2, "data__hazard_rows": 14, "fewshot__shots": 1}


@pytest.fixture
def answered(workspace, tiny_models, monkeypatch):
    """Have the tiny model answer, with a chat template, the questions of a stage."""
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    write_params(workspace, **{**TINY, **FEW, "gen_math__max_new_tokens": 4, "gen_safety__max_new_tokens": 4})
    monkeypatch.setattr(sys, "argv", ["prepare"])
    prepare.main()

    def answer(stage, template: str):
        (workspace / "tiny/chat_template.jinja").write_text(template)
        monkeypatch.setattr(sys, "argv", ["stage", "base"])
        stage.main()
        rows = generated("base") / ("math.jsonl" if stage is gen_math else "safety.jsonl")
        return read_made(rows), read_jsonl(rows, Answer)

    return answer


def test_how_answers_were_made_goes_with_them(answered):
    math, rows = answered(gen_math, CHATML)
    safety, _ = answered(gen_safety, CHATML)
    assert math == safety
    assert (math.model, math.quantization, math.tuning) == ("./tiny", "nf4", None)
    assert math.template == sha256_text(CHATML)
    assert set(math.libraries) == {"torch", "transformers", "tokenizers", "peft", "bitsandbytes"}
    other, again = answered(gen_math, f"<|im_start|>system\nBe brief.<|im_end|>\n{CHATML}")
    assert [row.prompt_sha256 for row in rows] != [row.prompt_sha256 for row in again]
    assert [words.partition(" (")[0] for words in differences(math, other).incomparable] == [
        "the model's files",
        "the chat template",
        "what the chat template renders",
    ]


def test_a_thought_that_the_prompt_opens_is_part_of_what_was_written(answered):
    _, rows = answered(gen_math, QWEN3_THINKING)
    assert {row.finish for row in rows} == {"length"}
    assert all(row.text.startswith("<think>\n") and spoken(row.text) == "" for row in rows)
