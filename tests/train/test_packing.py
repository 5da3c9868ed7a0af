"""Rows packed behind one copy of their shared prefix give the loss and the gradients of the rows one by one."""

import pytest
import torch

from stages.lib.base.rows import Problem
from stages.lib.model.attention import shared_prefix, use_attention
from stages.lib.model.models import load_base
from stages.lib.model.sources import Source, load_tokenizer
from stages.lib.train import encoding, packing
from stages.lib.train.encoding import encode
from stages.lib.train.packing import IGNORED, NAME, loss_in_pieces, pack, rows_per_pack
from tests.conftest import ARCHITECTURES, with_adapter

PROBLEMS = [
    Problem(
        id=f"r{n}", question=f"What is {n} {'and more ' * (n % 4)}and {n}?", answer=f"{2 * n}\n#### {2 * n}", gold="0"
    )
    for n in range(2, 13)
]
SHOTS, ROWS = PROBLEMS[:3], PROBLEMS[3:]


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])


def one_by_one(model, rows):
    """The loss of an optimizer step, each row in a pass of its own, through transformers' own attention and loss."""
    count = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    total = 0.0
    for row in rows:
        logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(row["labels"][1:])
        total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / count


def packed_loss(model, rows, prefix=None, kl=0.0):
    """The loss of an optimizer step, all rows in one pack behind what they share, its output layer in pieces."""
    shared = rows[0]["input_ids"][: shared_prefix([row["input_ids"] for row in rows])]
    return loss_of(model, pack(rows, shared if prefix is None else prefix), kl)


def loss_of(model, batch, kl=0.0):
    """The loss of one pack, its output layer in pieces."""
    with use_attention(model, NAME), loss_in_pieces(model, bf16=False, kl=kl) as in_pieces:
        labels, counted = batch.pop("labels"), batch["shift_labels"].ne(IGNORED).sum()
        return in_pieces(model(**batch), labels, counted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("loss", ["answer", "text"])
@pytest.mark.parametrize(("shots", "rows"), [(3, 8), (3, 1), (0, 8), (1, 3)])
@pytest.mark.parametrize("piece", [7, 4096])
def test_loss_and_gradients_are_those_of_the_rows_one_by_one(
    tiny_models, architecture, loss, shots, rows, piece, monkeypatch
):
    tokenizer = load_tokenizer(Source(str(tiny_models[architecture]), None))
    encoded = [encode(tokenizer, row, SHOTS[:shots], loss) for row in ROWS]
    prefix = shared_prefix([row["input_ids"] for row in encoded])
    assert prefix > (60 if shots else 2)
    model = with_adapter(tiny_models[architecture]).train()
    wanted_loss = one_by_one(model, encoded[:rows])
    wanted = gradients(model, wanted_loss)
    batch = pack(encoded[:rows], encoded[0]["input_ids"][:prefix])
    assert batch["input_ids"].shape[1] == prefix + sum(len(row["input_ids"]) - prefix for row in encoded[:rows])
    monkeypatch.setattr("stages.lib.train.packing.PIECE", piece)
    got_loss = loss_of(model, batch)
    got = gradients(model, got_loss)
    assert got_loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


def test_rows_without_a_common_beginning_are_packed_too(tiny_models):
    rows = [{"input_ids": [n, 7, 8 + n, 9], "labels": [IGNORED, 7, 8 + n, 9]} for n in range(20, 24)]
    model = with_adapter(tiny_models["llama"]).train()
    wanted = gradients(model, one_by_one(model, rows))
    batch = pack(rows, [])
    got = gradients(model, loss_of(model, batch))
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("shots", "chosen"), [(3, slice(None)), (0, slice(None)), (3, slice(3, 5)), (3, slice(2, 4))])
def test_rows_that_begin_with_part_of_the_prefix_only(tiny_models, architecture, shots, chosen):
    """Replayed rows, which lack the examples, packed with those that have them, or alone."""
    tokenizer = load_tokenizer(Source(str(tiny_models[architecture]), None))
    rows = [encode(tokenizer, row, SHOTS[:shots], "text") for row in ROWS[:3]]
    prefix = rows[0]["input_ids"][: shared_prefix([row["input_ids"] for row in rows])]
    rows += [
        encoding.row(tokenizer, f"<|im_start|>user\n{n} days?", f" {n} and {n}<|im_end|>", "answer") for n in (3, 5)
    ]
    rows = rows[chosen]
    batch = pack([*rows[::2], *rows[1::2]], prefix)
    longest = 0 if chosen.start == 3 else len(prefix)
    assert batch["input_ids"].shape[1] <= longest + sum(len(row["input_ids"]) for row in rows)
    model = with_adapter(tiny_models[architecture]).train()
    wanted_loss = one_by_one(model, rows)
    wanted = gradients(model, wanted_loss)
    got_loss = loss_of(model, batch)
    got = gradients(model, got_loss)
    assert got_loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("shots", "loss"), [(3, "answer"), (3, "text"), (0, "text")])
@pytest.mark.parametrize("head", [False, True])
def test_the_divergence_from_the_untuned_model_is_the_plain_formula(
    tiny_models, architecture, shots, loss, head, monkeypatch
):
    """Loss and gradients, against all logits of two models, each row in a pass of its own; an adapter on the output
    layer, too, as another tool may put it on one that is the embedding as well."""
    monkeypatch.setattr("stages.lib.train.training.tied", lambda model: set())
    tokenizer = load_tokenizer(Source(str(tiny_models[architecture]), None))
    rows = [encode(tokenizer, row, SHOTS[:shots], loss) for row in ROWS[:5]]
    model = with_adapter(
        tiny_models[architecture], **({"target_modules": ["q_proj", "lm_head"]} if head else {})
    ).train()
    untuned = load_base(Source(str(tiny_models[architecture]), None), "none", "float32")
    count, plain = sum(label != IGNORED for row in rows for label in row["labels"][1:]), 0.0
    for row in rows:
        ids, counts = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:]) != IGNORED
        with torch.no_grad():
            before = untuned(ids).logits[0, :-1].double().log_softmax(-1)
        after = model(ids).logits[0, :-1].double().log_softmax(-1)
        plain = plain + (before.exp() * (before - after)).sum(-1)[counts].sum() / count
    assert plain.item() > 0.01
    wanted_loss = one_by_one(model, rows) + 0.7 * plain
    wanted = gradients(model, wanted_loss)
    monkeypatch.setattr("stages.lib.train.packing.PIECE", 7)
    got_loss = packed_loss(model, rows, kl=0.7)
    got = gradients(model, got_loss)
    assert got_loss.item() == pytest.approx(wanted_loss.item(), rel=1e-5)
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-4  # of differences between nearly equal shares
    again = gradients(model, packed_loss(model, rows))  # nothing is left of it
    assert torch.allclose(again, gradients(model, packed_loss(model, rows)), atol=1e-6)  # not bits: of two threads
    assert not torch.allclose(again, got)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_without_a_divergence_loss_and_gradients_are_bit_for_bit_those_of_cross_entropy_alone(tiny_models, one_thread):
    tokenizer = load_tokenizer(Source(str(tiny_models["qwen2"]), None))
    rows = [encode(tokenizer, row, SHOTS, "text") for row in ROWS]
    model = with_adapter(tiny_models["qwen2"]).train()
    got_loss = packed_loss(model, rows)
    got = gradients(model, got_loss)
    batch = pack(rows, rows[0]["input_ids"][: shared_prefix([row["input_ids"] for row in rows])])
    targets, weights = batch.pop("labels")
    with use_attention(model, NAME):
        head = model.get_output_embeddings()
        whole, head.forward = head.forward, lambda hidden: hidden
        hidden = model(**batch).logits[0]
        head.forward = whole
    total, inside = torch.zeros(()), []
    for states, of, weight in zip(hidden.detach().split(128), targets.split(128), weights.split(128), strict=True):
        states.requires_grad_()
        loss = (torch.nn.functional.cross_entropy(head(states).float(), of, reduction="none") * weight).sum()
        loss = loss / weights.sum()
        inside.append(torch.autograd.grad(loss, states)[0])
        total += loss.detach()
    model.zero_grad()
    hidden.backward(torch.cat(inside))
    wanted = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])
    assert torch.equal(got_loss.detach(), total)
    assert torch.equal(got, wanted)


def test_the_output_layer_never_sees_more_than_a_piece(tiny_models, monkeypatch):
    tokenizer = load_tokenizer(Source(str(tiny_models["qwen2"]), None))
    batch = pack([encode(tokenizer, row, [], "text") for row in ROWS], [])
    model = with_adapter(tiny_models["qwen2"]).train()
    head, seen = model.get_output_embeddings(), []
    whole = head.forward
    monkeypatch.setattr(head, "forward", lambda states: seen.append(len(states)) or whole(states))
    monkeypatch.setattr("stages.lib.train.packing.PIECE", 100)
    labels = batch.pop("labels")
    with use_attention(model, NAME), loss_in_pieces(model, bf16=False) as in_pieces:
        in_pieces(model(**batch), labels, labels[1].sum()).backward()
    assert max(seen) == 100
    assert sum(seen) == labels.shape[1] > 300


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("prefix", [0, 9])
def test_attention_as_two_products_is_attention(dtype, near, prefix, monkeypatch):
    """As torch's own in float32, with its gradients, at 6 query heads on 2 keys; by 16 bits' rounding in 16 bits."""
    torch.manual_seed(0)
    counts = [5, 1, 7]
    whole = [torch.randn(1, heads, prefix + sum(counts), 8, requires_grad=True) for heads in (6, 2, 2)]

    def attended(given):
        out, _ = packing.packed_attention(None, *given, None, 0.3, (prefix, [(prefix, n) for n in counts]))
        return [out, *torch.autograd.grad(out.float().square().sum(), given)]

    wanted = attended(whole)
    monkeypatch.setattr(packing, "_is_slow", lambda *_: True)
    monkeypatch.setattr(packing, "_attend", None)
    for got, want in zip(attended([each.to(dtype) for each in whole]), wanted, strict=True):
        assert ((got.float() - want).norm() / want.norm()).item() < near


def test_torchs_own_attention_is_left_out_only_where_it_is_slow():
    query = torch.randn(1, 2, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    long = torch.randn(1, 1, packing.SHORT, 4, dtype=torch.bfloat16)
    assert packing._is_slow(query, query, 0.0)
    others = ((query, query, 0.1), (query.detach(), query, 0.0), (query.float(), query, 0.0), (query, long, 0.0))
    assert not any(packing._is_slow(*each) for each in others)


def test_a_whole_optimizer_step_is_packed_if_it_fits():
    assert rows_per_pack([840] * 9, 751, batch_size=4, step=4) == 4
    assert rows_per_pack([840] * 9, 751, batch_size=1, step=4) == 4  # 751 + 4 * 89 tokens
    assert rows_per_pack([150] * 99, 20, batch_size=4, step=64) == 8  # 16 would be 2,100 tokens
    assert rows_per_pack([3000] * 9, 100, batch_size=2, step=6) == 2  # never fewer than batch_size
    assert rows_per_pack([3000] * 9, 0, batch_size=1, step=4) == 1
