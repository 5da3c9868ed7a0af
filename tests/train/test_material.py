"""What the untuned model writes to be trained on: a small model that really solves a few problems, and answers."""

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.base.params import parse_params
from stages.lib.base.rows import Problem, Prompt
from stages.lib.generate.engine import Engine
from stages.lib.model.attention import shared_prefix
from stages.lib.model.models import load_base, load_for_generation
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.prompts.gsm8k import QUESTION
from stages.lib.train import material
from stages.lib.train.encoding import encode
from stages.lib.train.packing import IGNORED
from stages.lib.train.training import add_lora, save, train
from stages.lib.train.untuned import perplexity, token_losses
from tests.conftest import params_values, with_adapter
from tests.train.test_packing import gradients, one_by_one, packed_loss

SOLVED = [Problem(id=f"r{n}", question=f"What is {n}?", answer=f"It is {n}.\n#### {n}", gold=f"{n}") for n in range(3)]
# of these the model has learned another number
WRONG = [row.model_copy(update={"id": f"w{row.gold}", "gold": "7", "answer": "#### 7"}) for row in SOLVED[:1]]
PROMPTS = [Prompt(id=f"p{n}", text=f"Tell me {n} things.", hazard="none", persona="") for n in range(6)]


def settings(**changes):
    return parse_params(params_values(**changes), "params.yaml")


@pytest.fixture(scope="module")
def asked(tiny_models, tmp_path_factory):
    """A small model that was taught SOLVED, each in two ways, loaded to be asked."""
    source, folder = Source(str(tiny_models["llama"]), None), tmp_path_factory.mktemp("taught")
    tokenizer, model = load_tokenizer(source), load_base(source, "none", "float32")
    changes = {"finetune__epochs": 60, "finetune__learning_rate": 3e-3, "finetune__batch_size": 6}
    taught = settings(**changes, lora__enabled=False, model__quantization="none").finetune
    rows = [encode(tokenizer, row, [], "answer") for row in SOLVED]
    rows += [encode(tokenizer, row, [], "answer", f"So {row.gold}.\n#### {row.gold}") for row in SOLVED]
    train(model, rows, taught, bf16=False)
    save(model, tokenizer, folder, "float32")
    kept = tmp_path_factory.mktemp("kept")
    return Engine(load_for_generation(Source(str(folder), None), "none", "float32"), tokenizer, 4, kept)


def test_of_several_right_solutions_the_least_perplexing_is_taken_and_of_none_none(asked):
    data = settings(data__solutions="own", data__samples=8).data
    said, found = material.own_solutions(asked, [*SOLVED, *WRONG], [], data)
    assert said[-1] is None
    assert found["solved_share"] == 3 / 4
    for row, text in zip(SOLVED, said, strict=False):
        ways = [f"A: {row.answer}", f"So {row.gold}.\n#### {row.gold}"]
        assert text in ways
        rows = [encode(asked.tokenizer, row, [], "answer", way) for way in ways]
        by_way = {
            way: perplexity(each, losses)
            for way, each, losses in zip(ways, rows, token_losses(asked.model, rows), strict=True)
        }
        assert by_way[text] == min(by_way.values())
    assert 1 < found["perplexity_own"] <= found["perplexity_published"]
    assert material.own_solutions(asked, [*SOLVED, *WRONG], [], data) == (said, found)


def test_an_answer_alone_is_no_solution():
    assert material.is_worked("2+2=4\n#### 4")
    assert not material.is_worked("#### 4")
    assert not material.is_worked("A: The answer:\n#### 4")
    assert not material.is_worked("")


def test_an_unsolved_problem_keeps_its_published_solution_or_goes(asked):
    problems = [*SOLVED, *WRONG]
    for unsolved, rows in (("published", 4), ("none", 3)):
        params = settings(data__solutions="own", data__samples=8, data__unsolved=unsolved)
        made = material.with_a_say(asked, problems, [], [], params.data, params.finetune)
        assert len(made.rows) == rows
        said = material.own_solutions(asked, problems, [], params.data)[0]
        wanted = [encode(asked.tokenizer, row, [], "answer", text) for row, text in zip(problems, said, strict=True)]
        assert made.rows == wanted[:rows]
        assert wanted[3] == encode(asked.tokenizer, WRONG[0], [], "answer")
    params = settings(data__solutions="own", data__unsolved="none")
    with pytest.raises(BadInput, match="a right solution to none of 1 problems; set data.solutions to rewritten"):
        material.with_a_say(asked, WRONG, [], [], params.data, params.finetune)


def test_rewriting_shows_the_published_solution(asked):
    said, found = material.own_solutions(asked, WRONG, [], settings(data__solutions="rewritten").data)
    assert (said, found) == ([None], {"solved_share": 0.0})  # this model cannot
    prompt = material.render_prompt(asked.tokenizer, material.rewriting_messages(SOLVED[1]))
    assert "Q: What is 1? Let's think step by step." in prompt
    assert "It is 1.\n#### 1\n" in prompt


def test_answers_are_the_models_own_and_only_those_that_end_are_taught_to_end(asked, monkeypatch):
    monkeypatch.setattr(material, "REPLAY_TOKENS", 16)
    prompts = [*PROMPTS, Prompt(id="s", text=QUESTION.format(question="What is 1?"), hazard="none", persona="")]
    shown = [material.render_prompt(asked.tokenizer, material.safety_messages(prompt.text)) for prompt in prompts]
    texts = material.greedy(asked, shown, 16, "test")
    assert {text.finish for text in texts} == {"stop", "length"}
    rows = material.answers(asked, prompts)
    assert len(rows) == len(prompts)
    for prompt, text, each in zip(shown, texts, rows, strict=True):
        said = [token for token in each["labels"] if token != IGNORED]
        assert asked.tokenizer.decode(each["input_ids"]) == prompt + asked.tokenizer.decode(said)
        end = asked.tokenizer.eos_token if text.finish == "stop" else ""
        assert asked.tokenizer.decode(said) == (text.text.strip() + end if end else text.text)


@pytest.mark.parametrize("shots", [0, 2])
def test_replayed_rows_and_all_else_together_have_the_plain_formulas_loss_and_gradients(tiny_models, asked, shots):
    """Own solutions, a mask, replayed rows and the divergence, packed behind the examples."""
    params = settings(
        data__solutions="own", data__samples=4, finetune__mask_perplexity=50, finetune__loss="text", finetune__replay=6
    )
    made = material.with_a_say(asked, SOLVED, WRONG * shots, PROMPTS, params.data, params.finetune)
    assert len(made.replayed) == made.found["replayed"] > 0
    assert 0 < made.found["masked_share"] < 1
    rows = [*made.rows, *made.replayed]
    model = with_adapter(tiny_models["llama"]).train()
    before = load_base(Source(str(tiny_models["llama"]), None), "none", "float32")
    count = material.counted(rows)
    plain = 0.0
    for each in rows:
        ids, counts = torch.tensor([each["input_ids"]]), torch.tensor(each["labels"][1:]) != IGNORED
        with torch.no_grad():
            old = before(ids).logits[0, :-1].log_softmax(-1)
        new = model(ids).logits[0, :-1].log_softmax(-1)
        plain = plain + (old.exp() * (old - new)).sum(-1)[counts].sum() / count
    wanted_loss = one_by_one(model, rows) + 0.3 * plain
    wanted = gradients(model, wanted_loss)
    shared = made.rows[0]["input_ids"][: shared_prefix([each["input_ids"] for each in made.rows])]
    loss = packed_loss(model, [rows[-1], *rows[:-1]], shared, kl=0.3)
    got = gradients(model, loss)
    assert loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


def test_training_mixes_replayed_rows_in(tiny_models, asked):
    params = settings(finetune__batch_size=2, finetune__learning_rate=1e-3, finetune__kl=0.5)
    rows = [encode(asked.tokenizer, row, WRONG, "answer") for row in SOLVED]
    model = add_lora(
        load_base(Source(str(tiny_models["llama"]), None), "none", "float32"), params.lora, 5, "./tiny", None
    )
    steps = train(model, rows, params.finetune, False, None, material.answers(asked, PROMPTS))
    assert len(steps) == 5  # 3 and 6 rows, 2 an update
    assert all(torch.isfinite(torch.tensor(step["loss"])) for step in steps)
