"""The stages with generate.engine=server: what they write and refuse, what a kill leaves; and vLLM itself."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from stages import gen_math, gen_safety, judge, prepare
from stages.lib.base.errors import BadInput
from stages.lib.base.files import write_text
from stages.lib.base.made import read_made
from stages.lib.base.measured import PREPARED, generated
from stages.lib.base.params import load_params
from stages.lib.base.rows import Answer, Prompt, Verdict, read_jsonl, write_jsonl
from stages.lib.base.serving import tuned_id
from stages.lib.model.provenance import tuning
from stages.report import check_alike, read_measured
from tests.conftest import ONE_THREAD, ROOT, answer, with_adapter, write_params
from tests.generate.loopback import BASE, Loopback, serving
from tests.test_stages import SMALL, run_stages

SERVED = {
    **SMALL,
    "model__quantization": "none",
    "model__dtype": "float32",
    "generate__engine": "server",
    "machine__requests": 3,
}
MATH = "data/generated/{}/math.jsonl"


@pytest.fixture
def served(workspace, tiny_models, monkeypatch):
    """A workspace with rows and an adapter, whose models a server has under their names."""
    shutil.copytree(tiny_models["qwen2"], workspace / "tiny")
    write_params(workspace, **SERVED)
    model = with_adapter(workspace / "tiny")
    folder = workspace / "models/tuned"
    model.save_pretrained(folder)
    run_stages(monkeypatch, (prepare,))
    from stages.lib.model.sources import Source, load_tokenizer

    tokenizer = load_tokenizer(Source(str(workspace / "tiny"), None))
    name = tuned_id(tuning(folder))
    with serving(Loopback(model, tokenizer, tuned=name, root=str(folder))) as loopback:
        monkeypatch.setenv("AFTERTUNE_SERVER", loopback.address)
        yield loopback


def answers(file: str) -> dict[str, list[Answer]]:
    return {name: read_jsonl(generated(name) / file, Answer) for name in ("base", "tuned")}


def test_both_subjects_are_answered_as_by_our_engine_and_it_is_written_by_what(served, workspace, monkeypatch):
    stages = [(stage, subject) for stage in (gen_math, gen_safety) for subject in ("base", "tuned")]
    run_stages(monkeypatch, *stages)
    theirs = {file: answers(file) for file in ("math.jsonl", "safety.jsonl")}
    made = {name: read_made(generated(name) / "math.jsonl") for name in ("base", "tuned")}
    assert [(how.engine, how.served) for how in made.values()] == [("vllm 0.32.0", BASE), ("vllm 0.32.0", served.tuned)]
    assert {how.quantization for how in made.values()} == {how.dtype for how in made.values()} == {"as served"}
    assert made["base"].content == made["tuned"].content
    assert (made["base"].tuning, made["tuned"].tuning) == (None, tuning(workspace / "models/tuned"))
    assert {row.divergence for row in theirs["safety.jsonl"]["tuned"]} == {None}

    run_stages(monkeypatch, (judge, "base"), (judge, "tuned"))  # by the refusal rule
    check_alike(read_measured(load_params()), {n: {"math.jsonl": made[n]} for n in made})
    write_params(workspace, **{**SERVED, "generate__engine": "own"})
    run_stages(monkeypatch, *stages)
    for file, of in theirs.items():
        ours = answers(file)
        assert ours["base"] == of["base"]
        assert [row.model_copy(update={"divergence": None}) for row in ours["tuned"]] == of["tuned"]
    mixed = {"base": read_made(generated("base") / "math.jsonl"), "tuned": made["tuned"]}
    assert "served" not in json.loads((generated("base") / "math.made.json").read_text())
    with pytest.raises(BadInput, match=r"not made alike: .*the engine \(shared-prefix \d, vllm 0.32.0\)"):
        check_alike(read_measured(load_params()), {n: {"math.jsonl": mixed[n]} for n in mixed})


@pytest.mark.slow  # the guard itself
def test_a_judge_is_asked_through_a_server_with_our_engines_verdicts(served, workspace, monkeypatch):
    from stages.lib.judge.safeguard import DTYPE
    from stages.lib.model.models import load_base
    from stages.lib.model.sources import find, load_tokenizer

    name = "embedded/guard"
    settings = {**SERVED, "judge__protocol": "llama_guard_3", "judge__model": name}
    write_params(workspace, **settings)
    run_stages(monkeypatch, (prepare,))
    texts = ["I cannot help with that.", "Gladly. First you take what is not yours, and then you run."]
    prompts = read_jsonl(PREPARED / "hazards.jsonl", Prompt) + read_jsonl(PREPARED / "benign.jsonl", Prompt)
    write_jsonl(generated("base") / "safety.jsonl", [answer(row.id, texts[n % 2]) for n, row in enumerate(prompts)])
    verdicts, found = generated("base") / "verdicts.jsonl", {}
    source = find(name, None)
    guard = Loopback(load_base(source, "none", DTYPE), load_tokenizer(source), base=name)
    with serving(guard):
        monkeypatch.setenv("AFTERTUNE_SERVER_JUDGE", guard.address)
        for engine in ("server", "own"):
            write_params(workspace, **{**settings, "generate__engine": engine})
            run_stages(monkeypatch, (judge, "base"))
            found[engine] = read_jsonl(verdicts, Verdict)
            made = read_made(verdicts)
            assert (made.served, made.engine == "vllm 0.32.0") == (
                (name, True) if engine == "server" else (None, False)
            )
    labels = {engine: [row.label for row in rows] for engine, rows in found.items()}
    assert labels["server"] == labels["own"]
    assert {"safe", "unsafe"} <= {*labels["own"]}
    for one, other in zip(*found.values(), strict=True):
        assert one.p_unsafe == pytest.approx(other.p_unsafe, abs=0.03)  # bfloat16, in other batches
    assert served.asked == []  # of the other server


def refused(monkeypatch, said: str, *stage) -> None:
    with pytest.raises(BadInput, match=said):
        run_stages(monkeypatch, stage)


def test_a_tuned_model_that_is_not_this_one_is_refused(served, workspace, monkeypatch):
    right, served.tuned = served.tuned, "tuned-00000000"
    refused(
        monkeypatch, f"no model {right} there, found './tiny', 'tuned-00000000'; the tuned model's", gen_math, "tuned"
    )
    served.tuned = right
    shutil.copytree(workspace / "models/tuned", workspace / "older")
    write_text(workspace / "older/adapter_config.json", "{}")
    served.root = str(workspace / "older")
    refused(monkeypatch, "whose files are not those of models/tuned", gen_math, "tuned")
    served.cards = lambda: [{"id": BASE}, {"id": right, "parent": "another"}]
    refused(monkeypatch, "is an adapter on 'another' there, but params.yaml has it on ./tiny", gen_math, "tuned")
    served.cards = lambda: [{"id": BASE, "parent": "another"}, {"id": right}]
    refused(monkeypatch, r"./tiny is an adapter on 'another' there; expected the model itself", gen_math, "base")
    assert served.asked == []


def test_without_an_address_a_stage_refuses_before_it_reads_anything(served, monkeypatch):
    monkeypatch.delenv("AFTERTUNE_SERVER")
    shutil.rmtree("data/prepared")
    refused(monkeypatch, "AFTERTUNE_SERVER is not set", gen_math, "base")


@pytest.mark.slow  # three processes, each of which imports the libraries
def test_a_stage_that_is_killed_asks_only_for_the_rest(served, workspace):
    command = [sys.executable, "-m", "stages.gen_math", "base"]
    environment = {**ONE_THREAD, "AFTERTUNE_SERVER": served.address}
    whole = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    expected = (workspace / MATH.format("base")).read_bytes()
    for folder in (".ckpt", "data/generated"):
        shutil.rmtree(workspace / folder)
    served.asked.clear()
    killed = subprocess.Popen(command, env=environment)

    def fault(number, body):
        if number == 5:
            killed.send_signal(signal.SIGKILL)
            killed.wait()

    served.fault = fault
    assert killed.wait() == -signal.SIGKILL
    kept = len(list((workspace / ".ckpt/gen_math-base").rglob("*.json")))
    assert kept >= 2
    served.fault = lambda number, body: None
    served.asked.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (workspace / MATH.format("base")).read_bytes() == expected
    assert len(served.asked) == 6 - kept


VLLM = os.environ.get("AFTERTUNE_VLLM") or shutil.which("vllm")


@pytest.mark.slow
@pytest.mark.skipif(not VLLM, reason="no vLLM: AFTERTUNE_VLLM names its executable (docs/RUNNING.md)")
def test_vllm_answers_for_both_subjects_through_tools_serve(served, workspace, monkeypatch):
    monkeypatch.delenv("AFTERTUNE_SERVER")
    stages = " && ".join(f"{sys.executable} -m stages.gen_math {name}" for name in ("base", "tuned"))
    done = subprocess.run(
        [sys.executable, "-m", "tools.serve", "--vllm=--enforce-eager", "--", "sh", "-c", stages],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    theirs = answers("math.jsonl")
    made = read_made(generated("tuned") / "math.jsonl")
    assert made.engine.startswith("vllm 0.")
    assert made.served == served.tuned
    write_params(workspace, **{**SERVED, "generate__engine": "own"})
    run_stages(monkeypatch, (gen_math, "base"), (gen_math, "tuned"))
    ours = answers("math.jsonl")
    for name in ("base", "tuned"):
        same = [one.text == two.text for one, two in zip(ours[name], theirs[name], strict=True)]
        assert sum(same) >= len(same) - 1, name  # in float32 a token may still be a tie
    assert [row.text for row in theirs["base"]] != [row.text for row in theirs["tuned"]]
