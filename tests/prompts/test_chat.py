"""What chat templates differ in: the date, thoughts, what ends a turn. Real ones in short, with a real tokenizer."""

import datetime

import pytest
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem
from stages.lib.prompts.chat import (
    check_template,
    math_messages,
    plain_text,
    render_completion,
    render_prompt,
    safety_messages,
    turn_end,
)

CHATML = """\
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA_3_2 = """\
{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}\
{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}\
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\nToday Date: " + date_string + "\n\n<|eot_id|>" }}
{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' \
+ message['content'] | trim + '<|eot_id|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
MISTRAL_SMALL = """\
{{- bos_token }}[SYSTEM_PROMPT]The current date is {{ strftime_now("%Y-%m-%d") }}.[/SYSTEM_PROMPT]
{%- for message in messages %}{%- if message.role == 'user' %}{{- '[INST]' + message.content + '[/INST]' }}
{%- else %}{{- ' ' + message.content + eos_token }}{%- endif %}{%- endfor %}"""
PHI_3 = """\
{% for message in messages %}{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""
QWEN3 = """\
{%- for message in messages %}{%- if message.role == 'assistant' and loop.last %}
{{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}
{%- else %}{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"""
SWITCH = "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}"
QWEN3, WITHOUT_SWITCH = f"{QWEN3}{SWITCH}{{%- endif %}}", f"{QWEN3}{{%- endif %}}"
QWEN3_THINKING = WITHOUT_SWITCH.replace("assistant\n' }}{%- endif %}", "assistant\n<think>\n' }}{%- endif %}")
R1 = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
SHOT = Problem(id="s", question="How much is 1 and 1?", answer="1+1=2\n#### 2", gold="2")
ASKED = math_messages("How many?", [SHOT])


@pytest.fixture
def templated(tiny_models):
    """A tokenizer with a template; by its own settings a text ends with <|endoftext|>."""

    def make(template: str, *own: str):
        tokenizer = AutoTokenizer.from_pretrained(tiny_models["qwen2"])
        tokenizer.add_special_tokens({"eos_token": "<|endoftext|>", "additional_special_tokens": list(own)})
        tokenizer.chat_template = template
        return tokenizer

    return make


class Tomorrow(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 2, 3)


@pytest.mark.parametrize(
    ("template", "date"), [(LLAMA_3_2, "Today Date: 26 Jul 2024\n"), (MISTRAL_SMALL, "The current date is 2024-07-26.")]
)
def test_a_template_that_writes_the_date_renders_the_same_tomorrow(templated, monkeypatch, template, date):
    own = ("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]")
    today = render_prompt(templated(template, *own), ASKED), render_completion(templated(template, *own), ASKED, "4")
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    tokenizer = templated(template, *own)
    assert "2031" in tokenizer.apply_chat_template(ASKED, tokenize=False, chat_template=template + " ")
    assert (render_prompt(tokenizer, ASKED), render_completion(tokenizer, ASKED, "4")) == today
    assert date in today[0]


ENDS = [
    (CHATML, [], "<|im_end|>", "#### 4<|im_end|>"),
    (LLAMA_3_2, ["<|eot_id|>"], "<|eot_id|>", "#### 4<|eot_id|>"),
    (MISTRAL_SMALL, ["[INST]", "[/INST]"], "<|endoftext|>", " #### 4<|endoftext|>"),
    (PHI_3, ["<|end|>", "<|user|>", "<|assistant|>"], "<|end|>", "#### 4<|end|>"),
    (QWEN3, [], "<|im_end|>", "#### 4<|im_end|>"),
    (QWEN3_THINKING, [], "<|im_end|>", "\n</think>\n\n#### 4<|im_end|>"),
]


@pytest.mark.parametrize(("template", "own", "end", "completion"), ENDS)
def test_a_turn_ends_where_the_template_ends_it_in_training_as_in_testing(templated, template, own, end, completion):
    tokenizer = templated(template, *own)
    check_template(tokenizer)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids(end)
    assert render_completion(tokenizer, ASKED, "#### 4") == completion


def test_a_template_that_knows_how_to_leave_thoughts_out_does_in_testing_as_in_training(templated):
    tokenizer = templated(QWEN3)
    prompt = render_prompt(tokenizer, ASKED)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert prompt.count("<think>") == 1  # none in the examples
    whole = tokenizer.apply_chat_template([*ASKED, {"role": "assistant", "content": "#### 4"}], tokenize=False)
    assert whole == prompt + render_completion(tokenizer, ASKED, "#### 4") + "\n"


REFUSED = [
    (WITHOUT_SWITCH, r"writes '<think>\\n\\n</think>\\n\\n' before the answer in a training text, which a test prompt"),
    (R1, r"writes '.*assistant\\n<think>\\n' in a test prompt where a training text has '.*assistant\\nI am well"),
    (CHATML.partition("{%- if add")[0], r"writes '<|im_start|>assistant\\n' before the answer"),
    (CHATML.replace("message.content", "message.content | upper"), "writes 'I AM WELL.<|im_end|>.*' for the answer"),
    (CHATML.replace("<|im_end|>", "(end)"), r"ends no turn: after an answer it writes '\(end\)\\n'"),
    ("{{ messages[9].content.strip() }}", "refuses these turns"),
]


@pytest.mark.parametrize(("template", "said"), REFUSED)
def test_what_cannot_be_trained_as_it_is_tested_is_refused_by_name(templated, template, said):
    with pytest.raises(BadInput, match=f"the model's chat template {said}"):
        check_template(templated(template))


def test_thoughts_that_would_vanish_from_what_was_written_are_refused(templated):
    with pytest.raises(BadInput, match=r"\[THINK\] is a special token, which is left out"):
        check_template(templated(MISTRAL_SMALL, "[THINK]", "[/THINK]"))


def test_no_text_ends_a_turn_also_where_the_template_does_so_by_an_ordinary_token(templated):
    tokenizer = templated(CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>", "<other>", "\n\n"])
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("<end>")
    assert render_prompt(tokenizer, safety_messages("a<end>b")).count("<end>") == 1
    assert plain_text(tokenizer, "a<end>b<other>c\n\nd<|im_start|>") == "a< end>b<other>c\n\nd< |im_start|>"
