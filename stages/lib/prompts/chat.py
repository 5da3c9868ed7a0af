"""The only builder of chat messages, for training and testing alike, and their rendering by the model's own template.

The system turn is whatever the chat template adds by itself, in training as in testing, unless fewshot.system says
otherwise for one of them. (The paper's code cut it off in training but kept it in evaluation, so the tuned model was
tested on a prompt it had not been trained on; arXiv:2402.18540 does so on purpose, with a safety prompt.)
"""

from collections.abc import Sequence
from datetime import datetime
from os.path import commonprefix
from typing import Any

from jinja2 import TemplateError

from stages.lib.base.errors import BadInput
from stages.lib.base.rows import Problem
from stages.lib.prompts.gsm8k import EXAMPLE_QUESTION, QUESTION, REWRITE, SOLUTION
from stages.lib.prompts.thinking import CLOSES, opened

Message = dict[str, str]
# What a template that writes today's date (Llama 3.2's, Mistral Small's) is told: the date that Llama 3.1's and 3.2's
# themselves fall back on. Else the tuned model, measured tomorrow, would see other prompts than the untuned one.
DATE = datetime(2024, 7, 26)
# a conversation with all that a template decides, the same for every model
_SAID = "I am well."
SAMPLE = [
    {"role": role, "content": text}
    for role, text in (("user", "How are you?"), ("assistant", _SAID), ("user", "What is 2 + 2?"))
]
_TEMPLATE, _MEND = "the model's chat template", "Set the template right (chat_template.jinja), or take another model"


def math_messages(question: str, shots: Sequence[Problem], system: str | None = None) -> list[Message]:
    """Fixed example problems as earlier turns, then the question: 2 * len(shots) + 1 messages, after a system turn if
    there is a text for one."""
    messages = _begin(system)
    for shot in shots:
        messages.append({"role": "user", "content": EXAMPLE_QUESTION.format(question=shot.question)})
        messages.append({"role": "assistant", "content": SOLUTION.format(answer=shot.answer)})
    return [*messages, {"role": "user", "content": QUESTION.format(question=question)}]


def rewriting_messages(problem: Problem, system: str | None = None) -> list[Message]:
    """A question with its published solution, to be solved in the model's own words (as in SDFT, arXiv:2402.13669)."""
    return [
        *_begin(system),
        {"role": "user", "content": REWRITE.format(question=problem.question, answer=problem.answer)},
    ]


def safety_messages(prompt: str, system: str | None = None) -> list[Message]:
    """One user turn, nothing around it but a system turn if there is a text for one."""
    return [*_begin(system), {"role": "user", "content": prompt}]


def _begin(system: str | None) -> list[Message]:
    return [] if system is None else [{"role": "system", "content": system}]


def render(tokenizer: Any, messages: Sequence[Message], opening: bool = True) -> str:
    """The turns as the model's chat template writes them and, with `opening`, the opening of the assistant's turn.

    What else a template may read is the same whenever and for whatever it is called: the date is DATE, and a model that
    can think first is asked not to (`enable_thinking`, Qwen3's switch), since the solutions that it learns from hold no
    thoughts. Raises BadInput if the template refuses the turns.
    """
    try:
        _pin_the_date(tokenizer.get_chat_template())
        return tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opening, enable_thinking=False
        )
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise BadInput(f"{_TEMPLATE} refuses these turns: {error}") from None


def _pin_the_date(template: str) -> None:
    """Have `strftime_now`, which transformers puts into a template's globals, tell DATE: no argument reaches it."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    _compile_jinja_template(template).environment.globals["strftime_now"] = lambda form: DATE.strftime(form)


def render_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """The text a model continues: the turns and the opening of the assistant's turn.

    It holds its own special tokens: tokenize it with add_special_tokens=False.
    """
    return render(tokenizer, _plain(tokenizer, messages))


def render_completion(tokenizer: Any, messages: Sequence[Message], answer: str) -> str:
    """What the chat template writes after `render_prompt` for this answer, up to and with the token that ends the turn.

    Raises BadInput where a training text would not begin as the test prompt does, or its turn would not end.
    """
    prompt = render_prompt(tokenizer, messages)
    whole = render(tokenizer, _plain(tokenizer, [*messages, {"role": "assistant", "content": answer}]), opening=False)
    if not whole.startswith(prompt):
        at = max(0, len(commonprefix([prompt, whole])) - 20)
        raise BadInput(
            f"{_TEMPLATE} writes {prompt[at:][:80]!r} in a test prompt where a training text has {whole[at:][:80]!r}; "
            f"a model cannot be trained on one and tested on the other. {_MEND}"
        )
    completion, said = whole[len(prompt) :], plain_text(tokenizer, answer).strip()
    before, found, after = completion.partition(said)
    if not found:
        raise BadInput(f"{_TEMPLATE} writes {completion[:80]!r} for the answer {said[:80]!r}. {_MEND}")
    if before.strip() not in ("", CLOSES if opened(prompt) else ""):
        raise BadInput(
            f"{_TEMPLATE} writes {before[:80]!r} before the answer in a training text, which a test prompt, ending in "
            f"{prompt[-40:]!r}, lacks. {_MEND}"
        )
    end = _own_token(tokenizer, after)
    if not end:
        raise BadInput(f"{_TEMPLATE} ends no turn: after an answer it writes {after[:80]!r}. {_MEND}")
    return completion[: len(before) + len(said) + after.index(end) + len(end)]


def turn_end(tokenizer: Any) -> int | None:
    """The token that ends a turn by the chat template, whatever the tokenizer's settings say; None if none does.

    It is the first of the tokenizer's own tokens after an answer, in a guard's template after the judged response.
    """
    try:
        _, found, after = render(tokenizer, SAMPLE[:2], opening=False).rpartition(_SAID)
    except BadInput:
        return None
    end = _own_token(tokenizer, after) if found else None
    return tokenizer.convert_tokens_to_ids(end) if end else None


def check_template(tokenizer: Any) -> None:
    """Refuse a chat template by which a model cannot be trained as it is tested, or its thoughts not be read past."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and "think" in token.content.lower():
            raise BadInput(
                f"the model's tokenizer: {token.content} is a special token, which is left out of what a model wrote, "
                "so that its thoughts would be read as its answer; such a model cannot be measured here"
            )
    render_completion(tokenizer, SAMPLE[:1], _SAID)


def _own_token(tokenizer: Any, text: str) -> str | None:
    """The first of the tokenizer's added tokens in a text, but for white space (Gemma's `\n\n`)."""
    own = {token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()}
    at = {token: place for token in own if (place := text.find(token)) >= 0}
    return min(at, key=lambda token: (at[token], -len(token)), default=None)


def plain_text(tokenizer: Any, text: str) -> str:
    """The text with the tokenizer's control tokens taken apart, `<|im_end|>` to `< |im_end|>`.

    Written out in a prompt or in a response, they would end its turn and open another: data would become instructions.
    Control tokens are, as in transformers, the special ones and those that stand in the chat template.
    """
    for token in tokenizer.added_tokens_decoder.values():
        if token.content in text and (token.special or _is_control(tokenizer, token.content)):
            text = text.replace(token.content, f"{token.content[0]} {token.content[1:]}")
    return text


def _is_control(tokenizer: Any, token: str) -> bool:
    return bool(token.strip()) and token in tokenizer.get_chat_template()


def _plain(tokenizer: Any, messages: Sequence[Message]) -> list[Message]:
    return [{**message, "content": plain_text(tokenizer, message["content"])} for message in messages]
