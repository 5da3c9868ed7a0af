"""A server in place of our engine: the same answers, and what it may do wrong. It is real, and so is its model."""

import threading
import time
from dataclasses import replace

import pytest
import torch

from stages.lib.base.errors import BadInput
from stages.lib.base.sections import Machine
from stages.lib.generate import engine, exchange, server
from stages.lib.generate.connect import check_apart, connect
from stages.lib.generate.engine import Engine
from stages.lib.model.models import SubjectFiles, load_base
from stages.lib.model.sources import Source, load_tokenizer
from tests.conftest import with_adapter
from tests.generate.loopback import BASE, Loopback, serving
from tests.generate.test_engine import questions

LIMIT = 12
MACHINE = Machine(requests=4, request_seconds=20)


@pytest.fixture
def own(tiny_models):
    """Our engine on the random model in float32."""
    source = Source(str(tiny_models["qwen2"]), None)
    return Engine(load_base(source, "none", "float32"), load_tokenizer(source), 8), source


@pytest.fixture
def served(own, monkeypatch):
    """The same model behind a server, and this end of it."""
    monkeypatch.setattr(exchange, "PAUSE", 0.01)
    with serving(Loopback(own[0].model, own[0].tokenizer)) as loopback:
        monkeypatch.setenv("AFTERTUNE_SERVER", f"{loopback.address}/v1/")
        yield loopback


def ask(own, keep=None, machine=MACHINE):
    return connect("base", BASE, own[1], own[0].tokenizer, machine, keep)


def test_a_server_gives_our_engines_answers_with_so_many_requests_at_once(own, served):
    prompts = questions(own[0].tokenizer, 17, 2)
    asked = ask(own)
    assert (asked.model, asked.engine, asked.context) == (BASE, "vllm 0.32.0", 2048)
    assert server.greedy(asked, prompts, LIMIT, "test") == engine.greedy(own[0], prompts, LIMIT, "test")
    assert served.most == 4
    tokens = [5, 17, 300]
    ours, theirs = (each.next_token(which, prompts, tokens, "t") for each, which in ((engine, own[0]), (server, asked)))
    assert [best for best, _ in theirs] == [best for best, _ in ours]
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert server.greedy(asked, [], LIMIT, "test") == server.next_token(asked, [], tokens, "test") == []


def test_texts_end_at_the_turns_end_and_where_they_repeat_themselves_as_ours_do(own, served):
    own[0].model.generation_config.eos_token_id = [2, *range(100, 49152, 9)]
    prompts = questions(own[0].tokenizer, 6, 1)
    asked = replace(ask(own), ends=sorted(engine.end_tokens(own[0].model, own[0].tokenizer)))
    ours = engine.greedy(own[0], prompts, LIMIT, "test", True)
    assert server.greedy(asked, prompts, LIMIT, "test", True) == ours
    assert {each.finish for each in ours} == {"stop", "length"}

    own[0].model.generation_config.eos_token_id = 2
    with torch.no_grad():
        for name, weight in own[0].model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()  # so that each token has one token that follows it, and soon one that came before
    ours = engine.greedy(own[0], prompts, 130, "test", True)
    assert server.greedy(ask(own), prompts, 130, "test", True) == ours
    assert "repetition" in {each.finish for each in ours}
    assert {each.finish for each in server.greedy(ask(own), prompts, 130, "test")} == {"length"}


def test_another_server_that_gives_no_tokens_is_taken_at_its_text(own, served, monkeypatch):
    complete = served.complete

    def bare(body):
        said = complete(body)
        said["choices"][0].pop("token_ids", None)
        return said

    monkeypatch.setattr(served, "complete", bare)
    prompts = questions(own[0].tokenizer, 5, 1)
    assert server.greedy(ask(own), prompts, LIMIT, "test") == engine.greedy(own[0], prompts, LIMIT, "test")


def test_what_may_pass_is_asked_again(own, served, capsys):
    prompts = questions(own[0].tokenizer, 9, 0)
    seen = set()

    def fault(number, body):
        first = tuple(body["prompt"]) not in seen
        seen.add(tuple(body["prompt"]))
        if not first:
            return None
        if number % 3 == 0:
            raise ConnectionAbortedError
        if number % 3 == 1:
            return 500, "no memory"
        return 200, '{"choices": [{"finish_reason": "abort", "text": ""}]}'

    served.fault = fault
    assert server.greedy(ask(own), prompts, LIMIT, "test") == engine.greedy(own[0], prompts, LIMIT, "test")
    said = capsys.readouterr().err
    assert "test: the server answers 500, 'nothing more'; trying again (1 of 6)" in said
    assert "test: the server cannot be reached, or went away" in said


def test_a_server_that_hangs_is_given_up_after_its_time(own, served):
    free = threading.Event()
    served.fault = lambda number, body: free.wait(30) and None
    start = time.monotonic()
    with pytest.raises(BadInput, match=r"test: the server at http\S+ gave no answer within 0.2 s, 6 times"):
        server.greedy(ask(own, machine=Machine(request_seconds=0.2)), questions(own[0].tokenizer, 3, 0), LIMIT, "test")
    assert time.monotonic() - start < 10
    free.set()


def test_a_server_that_goes_down_loses_no_answer_that_it_gave(own, served, tmp_path):
    prompts = questions(own[0].tokenizer, 10, 0)

    def fault(number, body):
        if number > 6:
            raise ConnectionAbortedError

    served.fault = fault
    one = Machine(requests=1)
    with pytest.raises(BadInput, match="went away: .*6 times. What it answered before is kept"):
        server.greedy(ask(own, tmp_path, one), prompts, LIMIT, "test")
    served.fault, before = lambda number, body: None, len(served.asked)
    assert server.greedy(ask(own, tmp_path, one), prompts, LIMIT, "test") == engine.greedy(
        own[0], prompts, LIMIT, "test"
    )
    assert len(served.asked) - before == len(prompts) - 6
    served.version, before = "0.33.0", len(served.asked)  # another engine's answers are not these
    server.greedy(ask(own, tmp_path, one), prompts, LIMIT, "test")
    assert len(served.asked) - before == len(prompts)


WRONG = [
    ({"fault": lambda number, body: (400, '{"error": {"message": "max_tokens is too large"}}')}, "400, 'max_tokens is"),
    ({"fault": lambda number, body: (401, '{"error": "Unauthorized"}')}, "refuses: 401, 'Unauthorized'"),
    ({"fault": lambda number, body: (200, "<html>")}, "in another form than completions have"),
    ({"fault": lambda number, body: (200, '{"choices": []}')}, "in another form than completions have"),
    ({"answers_as": "another"}, "./tiny was asked, but the server answered as another"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_what_will_not_pass_is_refused_at_once(own, served, changes, said):
    asked = ask(own)
    for name, value in changes.items():
        setattr(served, name, value)
    with pytest.raises(BadInput, match=said):
        server.greedy(asked, questions(own[0].tokenizer, 2, 0), LIMIT, "test")
    assert len(served.asked) <= 2


CHANGED = [
    (lambda said: said["usage"].update(prompt_tokens=1), r"read 1 tokens where \d+ were sent"),
    (lambda said: said["usage"].update(completion_tokens=3), r"cut an answer off at 3 tokens, 12 were asked for"),
    (
        lambda said: said["choices"][0].update(logprobs={"tokens": ["x"], "top_logprobs": [{"x": -1.0}]}),
        "expected those",
    ),
]


@pytest.mark.parametrize(("change", "said"), CHANGED)
def test_answers_that_are_not_to_what_was_asked_are_refused(own, served, monkeypatch, change, said):
    complete, asked = served.complete, ask(own)

    def changed(body):
        found = complete(body)
        change(found)
        return found

    monkeypatch.setattr(served, "complete", changed)
    prompts = questions(own[0].tokenizer, 2, 0)
    with pytest.raises(BadInput, match=said):
        server.greedy(asked, prompts, LIMIT, "test")
        server.next_token(asked, prompts, [5], "test")


def test_prompts_too_long_for_the_server_and_names_it_does_not_have_are_refused_before_it_is_asked(own, served):
    asked = ask(own)
    with pytest.raises(BadInput, match=r"takes \d+, but the server holds 2048; start it with room"):
        server.greedy(asked, questions(own[0].tokenizer, 2, 0), 2048, "test")
    with pytest.raises(BadInput, match="no model owner/name there, found './tiny'"):
        connect("base", "owner/name", own[1], own[0].tokenizer, MACHINE, None)
    served.tuned = "tuned-0"
    with pytest.raises(BadInput, match="tuned-0 is an adapter on './tiny' there; expected the model itself"):
        connect("base", "tuned-0", own[1], own[0].tokenizer, MACHINE, None)
    assert served.asked == []


ADDRESSES = [
    ({}, "AFTERTUNE_SERVER is not set"),
    ({"AFTERTUNE_SERVER": "localhost:8000"}, "AFTERTUNE_SERVER: found 'localhost:8000'"),
    ({"AFTERTUNE_SERVER": "http://me:key@host:1"}, "set AFTERTUNE_SERVER_KEY instead"),
    ({"AFTERTUNE_SERVER": "http://host:1", "AFTERTUNE_SERVER_BASE": "ftp://x"}, "AFTERTUNE_SERVER_BASE: found"),
]


@pytest.mark.parametrize(("environment", "said"), ADDRESSES)
def test_an_address_that_is_none_is_refused(own, monkeypatch, environment, said):
    for name in ("AFTERTUNE_SERVER", "AFTERTUNE_SERVER_BASE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=said):
        ask(own)


@pytest.fixture
def adapted(tiny_models, monkeypatch, tmp_path):
    """A model with an adapter behind a server, this end of both of its names, and the adapter's folder."""
    model = with_adapter(tiny_models["qwen2"])
    model.save_pretrained(tmp_path / "adapter")
    source = Source(str(tiny_models["qwen2"]), None)
    tokenizer = load_tokenizer(source)
    with serving(Loopback(model, tokenizer, tuned="tuned-12345678")) as loopback:
        monkeypatch.setenv("AFTERTUNE_SERVER", loopback.address)
        tuned = connect("tuned", "tuned-12345678", source, tokenizer, MACHINE, None)
        yield loopback, tuned, SubjectFiles(source, source, tmp_path / "adapter")


def test_a_server_that_answers_as_one_model_under_both_names_is_refused(adapted):
    loopback, tuned, files = adapted
    prompts = questions(tuned.tokenizer, 6, 1)
    check_apart(tuned, files, BASE, prompts)
    assert {body["model"] for body in loopback.asked} == {BASE, tuned.model}
    complete = loopback.complete
    loopback.complete = lambda body: {**complete({**body, "model": tuned.model}), "model": body["model"]}
    with pytest.raises(BadInput, match=r"tuned-12345678 and ./tiny answer alike: the first tokens of 4 prompts"):
        check_apart(tuned, files, BASE, prompts)
    with torch.no_grad():
        for name, weight in loopback.model.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    loopback.model.save_pretrained(files.adapter)
    check_apart(tuned, files, BASE, prompts)  # an adapter that does nothing is the base model: run 9
