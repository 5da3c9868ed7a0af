"""Models and data from a hub on loopback, by the libraries' real clients: what is asked for, and what goes wrong.

Whatever goes wrong is one message and exit code 1, soon: it names what was asked for, where, and what to do.
"""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from stages.lib.base.files import sha256_file
from stages.lib.data.sources import AILUMINATE_FILE, GSM8K
from tests.conftest import copy_inputs, write_params
from tests.hub.conftest import CHAT, GUARD, PAPER, Client
from tests.hub.server import LONGEST, TOKEN, Entry, Order, serving

REVISIONS = {
    "data__gsm8k_revision": PAPER["overrides"]["data.gsm8k_revision"],
    "data__ailuminate_revision": PAPER["overrides"]["data.ailuminate_revision"],
}
NO_COMMIT, MIB = "0" * 40, 2**20
FIND = """
import sys
from stages.lib.base.cli import run
from stages.lib.model.sources import find

run(lambda: print(find(*sys.argv[1:]).path))
"""
LATEST = """
import sys
from stages.lib.base.cli import run
from stages.lib.fetch.hub import latest

run(lambda: print(latest(sys.argv[1])))
"""
FETCH = """
import sys
from pathlib import Path
from stages.lib.base.model_files import ModelFile
from stages.lib.fetch.carriers import model_file
from stages.lib.base.cli import run

name, revision, file, size, sha256 = sys.argv[1:]
run(lambda: print(model_file("embedded/test", ModelFile(file, int(size), sha256, (name, revision), ()), Path("got"))))
"""
BROKEN = ("{", "[]", '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../../gone.safetensors"}}')
AGAIN = "Run this again later; files that are whole are kept"


def get_model(client: Client, name: str = CHAT[0], revision: str = CHAT[1], **environment: str):
    return client.run("-c", FIND, name, revision, **environment)


def get_data(client: Client, **environment: str):
    """prepare, with data.source: hub."""
    if not (client.folder / "params.yaml").exists():
        copy_inputs(client.folder)
        rows = {
            "data__train_rows": 64,
            **dict.fromkeys(("data__test_rows", "data__hazard_rows", "data__benign_rows"), "all"),
        }
        write_params(client.folder, data__source="hub", **rows, **REVISIONS)
    return client.run("-m", "stages.prepare", **environment)


def refused(ended, *said: str) -> None:
    """It ended with one message."""
    assert ended.code == 1, ended.stdout + ended.stderr
    lines = ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert lines[-1].startswith("error: ")
    noise = [line for line in lines[:-1] if not re.match(r"Downloading data from|downloading \S+ at \S+ from|$", line)]
    assert not noise
    for words in said:
        assert words in lines[-1]
    assert len(lines[-1]) < 600


def paths(client: Client) -> list[str]:
    return [path for _, path, _ in client.hub.asked]


def test_a_model_is_downloaded_once_and_only_what_is_read_of_it(client, untrained):
    for name, revision in (CHAT, GUARD):
        first = get_model(client, name, revision)
        assert first.code == 0, first.stderr
        found = Path(first.stdout.strip())
        published = untrained / "models" / name / revision
        for file in found.iterdir():
            assert file.read_bytes() == (published / file.name).read_bytes()
        held = {file.name for file in published.iterdir() if file.suffix in (".json", ".jinja", ".safetensors")}
        assert {file.name for file in found.iterdir()} == held
    assert not [path for path in paths(client) if path.endswith((".bin", ".gguf", ".pth", "README.md", "params.json"))]
    assert f"/{GUARD[0]}/resolve/{GUARD[1]}/model-00002-of-00002.safetensors" in paths(client)
    before = len(client.hub.asked)
    assert get_model(client).stdout.strip().endswith(CHAT[1])
    assert len(client.hub.asked) == before  # nothing was asked, not even for news


def test_a_model_file_is_taken_from_the_hub_by_its_content_alone(client, untrained):
    file = untrained / "models" / CHAT[0] / CHAT[1] / "model.safetensors"
    size, right = str(file.stat().st_size), sha256_file(file)
    done = client.run("-c", FETCH, *CHAT, file.name, size, right)
    assert done.code == 0, done.stderr
    assert (client.folder / done.stdout.strip()).read_bytes() == file.read_bytes()
    (client.folder / "got" / file.name).unlink()
    other = client.run("-c", FETCH, *CHAT, file.name, size, "0" * 64)
    assert other.code == 1
    assert "embedded/test: what was fetched is another file, by its sha256" in other.stderr
    gone = client.run("-c", FETCH, CHAT[0], NO_COMMIT, file.name, size, right)
    assert gone.code == 1
    assert f"{CHAT[0]} at {NO_COMMIT} on {client.hub.address}: no such revision" in gone.stderr
    assert "Traceback" not in other.stderr + gone.stderr


def test_data_is_downloaded_once_and_read_without_a_connection(client, untrained):
    first = get_data(client)
    assert first.code == 0, first.stderr
    assert "64 train, 200 test, 16 shots, 140 hazards, 70 benign rows from source hub" in first.stdout
    assert not [path for path in paths(client) if "socratic" in path]
    before = len(client.hub.asked)
    rows = {path.name: path.read_bytes() for path in (client.folder / "data/prepared").iterdir()}
    again = get_data(client, AILUMINATE_URL="http://127.0.0.1:9")  # kept whichever mirror it came from
    assert again.code == 0, again.stderr
    assert len(client.hub.asked) == before
    assert {path.name: path.read_bytes() for path in (client.folder / "data/prepared").iterdir()} == rows


@pytest.mark.parametrize("hub_is", ["stopped", "offline by HF_HUB_OFFLINE"])
def test_what_was_downloaded_is_there_without_a_hub(untrained, tmp_path, hub_is):
    with serving(untrained) as hub:
        client = Client(tmp_path, hub)
        assert get_data(client).code == get_model(client).code == 0
    environment = {"HF_HUB_OFFLINE": "1"} if "offline" in hub_is else {}
    assert get_data(client, **environment).code == get_model(client, **environment).code == 0


def test_a_gated_repository_names_the_page_of_its_licence_and_the_login(client):
    client.hub.gated |= {GUARD[0], GSM8K}
    login = "log in with that account (`hf auth login`, or set HF_TOKEN)"
    page = f"Accept its licence at {client.hub.address}"
    for token in ({}, {"HF_TOKEN": "hf_of_someone_who_did_not"}):
        asked = f"{GUARD[0]} at {GUARD[1]} on {client.hub.address}: gated"
        refused(get_model(client, *GUARD, **token), asked, f"{page}/{GUARD[0]}", login)
        refused(get_data(client, **token), f"{GSM8K} at ", f"{page}/datasets/{GSM8K}", login)
    for ended in (get_model(client, *GUARD, HF_TOKEN=TOKEN), get_data(client, HF_TOKEN=TOKEN)):
        assert ended.code == 0, ended.stderr


def test_a_judge_that_is_gated_or_not_there_is_refused_before_anything_waits_for_it(client):
    copy_inputs(client.folder)
    client.hub.gated |= {GUARD[0]}
    write_params(client.folder, judge__model=GUARD[0], judge__revision=GUARD[1])
    refused(client.run("-m", "stages.prepare"), f"judge.model: {GUARD[0]} at {GUARD[1]}", "gated. Accept its licence")
    assert client.run("-m", "stages.prepare", HF_TOKEN=TOKEN).code == 0
    write_params(client.folder, judge__model="nobody/nothing", judge__revision=NO_COMMIT)
    refused(client.run("-m", "stages.prepare"), f"judge.model: nobody/nothing at {NO_COMMIT}", "no such model")


def test_damaged_data_is_downloaded_again_by_what_the_message_says(client):
    assert get_data(client).code == 0
    for file in (client.folder / "hf").rglob("*.parquet"):
        file.resolve().write_bytes(b"PAR1")
    ended = get_data(client)
    refused(ended, "not readable as GSM8K's parquet", "and it is downloaded again")
    shutil.rmtree(re.search(r"remove the folder (\S+), and", ended.stderr)[1])
    assert get_data(client).code == 0


def test_a_revision_that_is_not_there_is_named(client):
    asked = f"{CHAT[0]} at {NO_COMMIT} on {client.hub.address}: no such revision"
    refused(get_model(client, CHAT[0], NO_COMMIT), asked, f"{client.hub.address}/{CHAT[0]}/commits/main")
    copy_inputs(client.folder)
    write_params(client.folder, data__source="hub", **{**REVISIONS, "data__gsm8k_revision": NO_COMMIT})
    refused(get_data(client), f"{GSM8K} at {NO_COMMIT}", f"{client.hub.address}/datasets/{GSM8K}/commits/main")
    write_params(client.folder, data__source="hub", **{**REVISIONS, "data__ailuminate_revision": NO_COMMIT})
    address = f"{client.hub.address}/raw/{NO_COMMIT}/{AILUMINATE_FILE}"
    refused(get_data(client), address, "404", "Check data.ailuminate_revision")


def test_the_commit_that_a_branch_is_at_is_asked_for_and_a_model_that_is_not_there_is_named(client):
    done = client.run("-c", LATEST, CHAT[0])
    assert (done.code, done.stdout.strip()) == (0, CHAT[1]), done.stderr
    refused(client.run("-c", LATEST, "nobody/nothing"), "nobody/nothing at main on ", "no such model")


def test_a_repository_that_is_not_there_is_named(client):
    asked = f"nobody/nothing at {NO_COMMIT} on {client.hub.address}: no such model"
    refused(get_model(client, "nobody/nothing", NO_COMMIT), asked, "Check its name in params.yaml or runs.yaml")
    del client.hub.repositories["datasets", GSM8K]
    refused(get_data(client), f"{GSM8K} at ", "no such dataset")


def test_a_hub_that_is_down(untrained, tmp_path):
    with serving(untrained) as hub:
        client = Client(tmp_path, hub)
    model, data = get_model(client), get_data(client)
    refused(model, f"{CHAT[0]} at {CHAT[1]} on {hub.address}: cannot be downloaded", "refused", AGAIN)
    refused(data, f"{GSM8K} at ", "refused", "Check the network, and HF_ENDPOINT if it is set")
    # said at once, before the download, whose client tries again for 23 s
    assert "downloading" not in model.stderr + data.stderr


def test_a_home_of_ailuminate_that_is_down(client):
    said = ("http://127.0.0.1:9/", AILUMINATE_FILE, "refused", "AILUMINATE_URL names a mirror")
    refused(get_data(client, AILUMINATE_URL="http://127.0.0.1:9"), *said)


@pytest.mark.parametrize("path", ["", pytest.param("/tree/", marks=pytest.mark.slow), "/large/", AILUMINATE_FILE])
def test_a_hub_that_answers_503(client, path):
    client.hub.orders = [Order(path, status=503)]
    said = ("503", "and run this again" if path == AILUMINATE_FILE else AGAIN)
    if path != AILUMINATE_FILE:
        refused(get_model(client), f"{CHAT[0]} at ", *said)
    if path != "/tree/":  # as for a model, and the client tries it for 23 s
        refused(get_data(client), client.hub.address, *said)
    client.hub.orders = []
    assert get_model(client).code == get_data(client).code == 0


@pytest.mark.slow
def test_a_hub_that_takes_its_time_is_waited_for(client):
    client.hub.orders = [Order(wait=1.5)]
    assert get_model(client).code == get_data(client).code == 0


# How long it takes is counted in requests: on a busy machine, seconds say nothing. Each waits for HF_HUB_ETAG_TIMEOUT
# (10 s), within a file for HF_HUB_DOWNLOAD_TIMEOUT (5 s); AILuminate's for 20 s.


@pytest.mark.slow
@pytest.mark.parametrize("what", ["model", "data", "AILuminate"])
def test_a_hub_that_never_answers(client, what):
    place = AILUMINATE_FILE if what == "AILuminate" else ""
    client.hub.orders = [Order(place, wait=LONGEST)]
    ended = get_model(client) if what == "model" else get_data(client)
    refused(ended, client.hub.address, "timed out" if what == "AILuminate" else "no answer within 10 s")
    assert len([path for path in paths(client) if place in path]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("what", ["model", "data", "AILuminate"])
def test_a_file_that_stalls_in_transfer(client, what):
    place = AILUMINATE_FILE if what == "AILuminate" else "/large/"
    client.hub.orders = [Order(place, stall_after=1000)]
    ended = get_model(client) if what == "model" else get_data(client)
    refused(ended, client.hub.address, "timed out" if what == "AILuminate" else "of a file within 5 s")
    times = Counter(path for path in paths(client) if place in path)
    assert max(times.values()) == (1 if what == "AILuminate" else 6)


@pytest.mark.slow
def test_a_list_of_files_that_never_comes(client):
    client.hub.orders = [Order("/tree/", wait=LONGEST)]  # the client by itself would wait for ever
    refused(get_model(client, HF_HUB_ETAG_TIMEOUT="3", HF_HUB_DOWNLOAD_TIMEOUT="2"), f"{CHAT[0]} at ", "within 3 s")
    assert len([path for path in paths(client) if "/tree/" in path]) == 6


def test_a_file_cut_off_in_transfer_goes_on_where_it_broke_off(client, tmp_path):
    more = tmp_path / "model-more.safetensors"
    more.write_bytes(random.Random(3).randbytes(24 * MIB))  # the client keeps pieces of 10 MiB
    entry = Entry(more)
    client.hub.repositories["models", CHAT[0]].files[more.name] = entry
    client.hub.orders = [Order(f"/large/{entry.sha256}", times=2, cut_after=11 * MIB)]
    ended = get_model(client)
    assert ended.code == 0, ended.stderr
    asked = [where for _, path, where in client.hub.asked if path == f"/large/{entry.sha256}"]
    assert asked == [None, f"bytes={10 * MIB}-", f"bytes={20 * MIB}-"]
    assert (Path(ended.stdout.strip()) / more.name).read_bytes() == more.read_bytes()


@pytest.mark.slow
def test_a_file_cut_off_every_time_is_one_message_and_starts_again_when_the_hub_is_well(client):
    client.hub.orders = [Order(f"/large/|{AILUMINATE_FILE}", cut_after=0)]
    refused(get_model(client), f"{CHAT[0]} at ", "cannot be downloaded", AGAIN)
    refused(get_data(client), f"{GSM8K} at ", "cannot be downloaded", AGAIN)
    client.hub.orders = [Order(AILUMINATE_FILE, cut_after=1000)]
    refused(get_data(client), AILUMINATE_FILE, "cannot be fetched", "run this again")
    client.hub.orders = []
    assert get_model(client).code == get_data(client).code == 0


def test_other_content_than_pinned_is_refused(client):
    copy_inputs(client.folder)
    write_params(client.folder, data__source="hub", data__sha256__train="0" * 64, **REVISIONS)
    refused(get_data(client), f"{GSM8K} train: sha256 is", "data.sha256.train expects 0000")
    write_params(client.folder, data__source="hub", data__sha256__hazards="0" * 64, **REVISIONS)
    refused(get_data(client), AILUMINATE_FILE, "hash")


def test_a_model_of_pickles_alone_is_refused(client):
    repository = client.hub.repositories["models", CHAT[0]]
    for file in [name for name in repository.files if name.endswith(".safetensors")]:
        del repository.files[file]
    refused(get_model(client), f"{CHAT[0]} at {CHAT[1]}", "other weight formats (pickles) are not loaded")
    assert not [path for path in paths(client) if path.endswith(".bin")]


def test_a_broken_index_of_weights_is_refused(client, tmp_path):
    for number, text in enumerate(
        ("{", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": "../../gone.safetensors"}}')
    ):
        broken = tmp_path / f"index-{number}.json"
        broken.write_text(text)
        files = client.hub.repositories["models", GUARD[0]].files
        files["model.safetensors.index.json"] = Entry(broken)
        refused(get_model(client, *GUARD, HF_HOME=str(tmp_path / str(number))), f"{GUARD[0]} at ", "model.safetensors")


def test_an_empty_cache_without_a_hub_by_wish(client):
    refused(get_model(client, HF_HUB_OFFLINE="1"), f"not in the cache ({client.folder}", "HF_HUB_OFFLINE")
    assert not client.hub.asked


def test_a_disk_that_takes_no_more_is_not_the_hubs_fault(client):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    ended = client.run("-c", full + FIND, *CHAT)
    refused(ended, "cannot be written or read ([Errno 27] File too large)")
    assert get_model(client).code == 0


def test_the_hub_itself_answers_as_the_real_one(client, untrained):
    """Ranges, names of content, and what is not there; so that the tests above try what they say."""
    base = f"{client.hub.address}/{CHAT[0]}/resolve/{CHAT[1]}"
    weights = (untrained / "models" / CHAT[0] / CHAT[1] / "model.safetensors").read_bytes()
    part = urlopen(Request(f"{base}/model.safetensors", headers={"Range": "bytes=10-19"}), timeout=5)
    assert (part.status, part.read()) == (206, weights[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(weights)}"
    head = urlopen(Request(f"{base}/config.json", method="HEAD"), timeout=5)
    assert (head.headers["X-Repo-Commit"], head.read()) == (CHAT[1], b"")
    for path, status, code in (
        (f"{base}/nothing.json", 404, "EntryNotFound"),
        (f"{client.hub.address}/{CHAT[0]}/resolve/{NO_COMMIT}/config.json", 404, "RevisionNotFound"),
        (f"{client.hub.address}/api/models/nobody/nothing", 401, "RepoNotFound"),
    ):
        with pytest.raises(HTTPError) as error:
            urlopen(path, timeout=5)
        assert (error.value.code, error.value.headers["X-Error-Code"]) == (status, code)
    asked = Request(
        f"{client.hub.address}/api/models/{CHAT[0]}/paths-info/main", method="POST", data=b"paths=config.json"
    )
    assert [entry["path"] for entry in json.load(urlopen(asked, timeout=5))] == ["config.json"]


FIND_TUNED = LATEST.replace("latest(sys.argv[1])", "tuned_folder(*sys.argv[1:])").replace("latest", "tuned_folder")


def test_an_adapter_is_downloaded_without_what_lies_beside_it(tmp_path):
    """A repository as Trainer pushes it: the adapter, its tokenizer, and pickles and checkpoints that nobody needs."""
    folder, revision = tmp_path / "hub/models/someone/adapter" / NO_COMMIT, NO_COMMIT
    wanted = ("adapter_model.safetensors", "adapter_config.json", "tokenizer_config.json", "chat_template.jinja")
    for name in (*wanted, "training_args.bin", "checkpoint-8/adapter_model.safetensors", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    with serving(tmp_path / "hub") as hub:
        client = Client(tmp_path, hub)
        done = client.run("-c", FIND_TUNED, "someone/adapter", revision)
        assert done.code == 0, done.stderr
        got = Path(done.stdout.strip())
        assert sorted(path.name for path in got.rglob("*") if path.is_file()) == sorted(wanted)
        asked = len(hub.asked)
        assert client.run("-c", FIND_TUNED, "someone/adapter", revision).stdout == done.stdout
        assert len(hub.asked) == asked
        for name in wanted[2:]:  # as peft fetches an adapter: its template is not known to be the base model's
            (got / name).unlink()
        assert client.run("-c", FIND_TUNED, "someone/adapter", revision).stdout == done.stdout
        assert (got / "chat_template.jinja").is_file()
        assert client.run("-c", LATEST, "someone/adapter").stdout.strip() == revision
        for name in wanted[2:]:
            (got / name).unlink()
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refused(client.run("-c", FIND_TUNED, "someone/adapter", revision), "cannot be downloaded", AGAIN)
    with serving(tmp_path / "hub") as hub:
        (tmp_path / "other").mkdir()
        done = Client(tmp_path / "other", hub).run("-c", FIND_TUNED, "someone/adapter", revision)
        refused(done, "neither an adapter", "(pickles) are not loaded")
