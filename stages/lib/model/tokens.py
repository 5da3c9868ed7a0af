"""Whether two models' tokenizers are one: the same text is the same tokens, a conversation the same text."""

from typing import Any

from stages.lib.base.errors import BadInput, short
from stages.lib.base.sections import Model
from stages.lib.model.sources import find, load_chat_tokenizer
from stages.lib.prompts.chat import SAMPLE, render


def check_same(own: Any, other: Any) -> list[str]:
    """The tokens that `own` has beside the other's. Raises BadInput where one of the other's is another token to it, or
    where its chat template writes a conversation as another text: such models answer other prompts."""
    vocabulary, known = own.get_vocab(), other.get_vocab()
    if moved := sorted(token for token, place in known.items() if vocabulary.get(token) != place):
        raise BadInput(
            f"its tokenizer is another one: {len(moved)} tokens, {short(moved[0])} the first, are others to it"
        )
    for turns, opening in ((SAMPLE, True), (SAMPLE[:2], False)):
        mine, theirs = render(own, turns, opening), render(other, turns, opening)
        if mine != theirs:
            raise BadInput(f"its chat template writes {short(mine)} where the other model's writes {short(theirs)}")
    return sorted({*vocabulary} - {*known})


def check_same_tokens(base: Model, model: Model) -> None:
    """Refuse a base.model to which a prompt is another one than to the model that was tuned (BadInput)."""
    if (base.name, base.revision) == (model.name, model.revision):
        return
    own, other = (load_chat_tokenizer(find(each.name, each.revision)) for each in (base, model))
    try:
        check_same(own, other)
    except BadInput as error:
        raise BadInput(
            f"base.model {base.name}: {error}. It cannot be compared with a tuning of {model.name}: both must be "
            "asked the same; name a model of the same tokenizer and chat template"
        ) from None
