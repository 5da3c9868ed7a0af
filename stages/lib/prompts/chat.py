"""The only builder of chat messages, for training and testing alike, and their rendering by the model's own template.

The system turn is whatever the chat template adds by itself, in training as in testing. (The paper's code cut it off in
training but kept it in evaluation, so the tuned model was tested on a prompt it had not been trained on.)
"""

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem
from stages.lib.prompts.gsm8k import EXAMPLE_QUESTION, QUESTION, SOLUTION

Message = dict[str, str]


def math_messages(question: str, shots: Sequence[Problem]) -> list[Message]:
    """Fixed example problems as earlier turns, then the question: 2 * len(shots) + 1 messages."""
    messages = []
    for shot in shots:
        messages.append({"role": "user", "content": EXAMPLE_QUESTION.format(question=shot.question)})
        messages.append({"role": "assistant", "content": SOLUTION.format(answer=shot.answer)})
    return [*messages, {"role": "user", "content": QUESTION.format(question=question)}]


def safety_messages(prompt: str) -> list[Message]:
    """One user turn, nothing around it."""
    return [{"role": "user", "content": prompt}]


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text a model continues: the turns and the opening of the assistant's turn.

    It holds its own special tokens: tokenize it with add_special_tokens=False.
    """
    try:
        return tokenizer.apply_chat_template(_plain(tokenizer, messages), tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise BadInput(f"the model's chat template refuses these turns: {error}") from None


def render_completion(tokenizer: Any, messages: Sequence[Message], answer: str) -> str:
    """What the chat template writes after `render_prompt` for this answer, up to and with the end-of-turn token."""
    prompt = render_prompt(tokenizer, messages)
    turns = _plain(tokenizer, [*messages, {"role": "assistant", "content": answer}])
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    if not whole.startswith(prompt):
        raise BadInput("the model's chat template does not continue its own generation prompt; it cannot be trained on")
    return whole[len(prompt) :].rstrip("\n")


def plain_text(tokenizer: Any, text: str) -> str:
    """The text with the tokenizer's control tokens taken apart, `<|im_end|>` to `< |im_end|>`.

    Written out in a prompt or in a response, they would end its turn and open another: data would become instructions.
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content in text:
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def _plain(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": plain_text(tokenizer, message["content"])} for message in messages]
