"""A server on loopback that answers with a real model, by transformers' `generate`, in the form of vLLM's answers.

That is completions with token_ids, logprobs by `token_id:N`, and model cards with root and parent. Faults are put in
front of it by a test.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import GenerationConfig

BASE = "./tiny"


@dataclass
class Loopback:
    """`model`, with its adapter off under the name `base` and, if it has one, on under the name `tuned`.

    `fault` is asked before each completion is computed, with its number and body: it returns a status and a text to
    answer instead, or None, or raises ConnectionAbortedError to hang up. `asked`: the bodies that came.
    """

    model: Any
    tokenizer: Any
    tuned: str | None = None
    root: str = ""
    base: str = BASE
    version: str = "0.32.0"
    answers_as: str | None = None
    fault: Callable[[int, dict], tuple[int, str] | None] = lambda number, body: None
    asked: list[dict] = field(default_factory=list)
    at_once: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    address: str = ""

    def cards(self) -> list[dict[str, Any]]:
        base = {"id": self.base, "owned_by": "vllm", "root": "/models/tiny", "parent": None, "max_model_len": 2048}
        adapter = {"id": self.tuned, "owned_by": "vllm", "root": self.root, "parent": self.base}
        return [base, *([adapter] if self.tuned else [])]

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """What vLLM answers to a body."""
        prompt = torch.tensor([body["prompt"]])
        ends = body.get("stop_token_ids") or []
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=body["max_tokens"],
            eos_token_id=ends or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
            repetition_penalty=body.get("repetition_penalty", 1.5),  # as a model's own settings would have it
        )
        off = self.tuned and body["model"] == self.base
        with self.lock, torch.inference_mode(), self.model.disable_adapter() if off else nullcontext():
            out = self.model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
        new = out.sequences[0, prompt.shape[1] :].tolist()
        stopped = new[-1] in ends
        choice = {
            "index": 0,
            "text": self.tokenizer.decode(new[:-1] if stopped else new, skip_special_tokens=True),
            "finish_reason": "stop" if stopped else "length",
            "logprobs": self._scores(out.logits[0][0], new[0], body) if body.get("logprobs") else None,
        }
        if body.get("return_token_ids"):
            choice["token_ids"] = new
        used = {"prompt_tokens": len(body["prompt"]), "completion_tokens": len(new)}
        return {"model": self.answers_as or body["model"], "choices": [choice], "usage": used}

    def _scores(self, logits: torch.Tensor, first: int, body: dict[str, Any]) -> dict[str, Any]:
        scores = torch.log_softmax(logits.float(), -1)
        tokens = body.get("logprob_token_ids") or scores.topk(body["logprobs"]).indices.tolist()
        top = {f"token_id:{token}": scores[token].item() for token in [first, *tokens]}
        return {"tokens": [f"token_id:{first}"], "top_logprobs": [top]}


@contextmanager
def serving(loopback: Loopback) -> Iterator[Loopback]:
    """Within: it answers at its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            pages = {"/v1/models": {"data": loopback.cards()}, "/version": {"version": loopback.version}}
            if self.path in pages:
                self.answer(200, json.dumps(pages[self.path]))
            else:
                self.answer(404, '{"error": {"message": "no such page"}}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            loopback.asked.append(body)
            loopback.at_once += 1
            loopback.most = max(loopback.most, loopback.at_once)
            try:
                status, text = loopback.fault(len(loopback.asked), body) or (200, None)
                if body["model"] not in [card["id"] for card in loopback.cards()]:
                    status, text = (
                        404,
                        json.dumps({"error": {"message": f"The model `{body['model']}` does not exist."}}),
                    )
                self.answer(status, json.dumps(loopback.complete(body)) if text is None else text)
            except ConnectionAbortedError:
                self.close_connection = True
            finally:
                loopback.at_once -= 1

        def answer(self, status: int, text: str) -> None:
            content = text.encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client has gone
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    loopback.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield loopback
    finally:
        server.shutdown()
        server.server_close()
