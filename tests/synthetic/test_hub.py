"""Sets on a hub: what is pushed can be pulled, by the real client library from a server that keeps files in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import ddplug
from ddplug.errors import FormatError, MissingExtraError, OptionError

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Repositories for data sets: create, commit and resolve, as the client asks for them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, bytes] = {}
        self.created: list[Any] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps(self.posted(body)).encode(), Content_Type="application/json")

    def posted(self, body: bytes) -> Any:
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return {"url": f"{self.server.address}/datasets/me/digits"}
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return {"commitOid": COMMIT, "commitUrl": f"{self.server.address}/datasets/me/digits/commit/{COMMIT}"}
        return {"errors": [], "warnings": []}

    def do_GET(self) -> None:
        content = self.server.files.get(self.path.rpartition("/")[2])
        if content is None or not self.path.startswith("/datasets/me/digits/resolve/"):
            self.answer(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            self.answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    def do_HEAD(self) -> None:
        self.do_GET()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_is_pushed_can_be_pulled(hub: Hub) -> None:
    made = ddplug.load("digits-2kB")
    address = ddplug.hub.push(made, "me/digits", license="cc-by-4.0", token="t", endpoint=hub.address)
    assert address == f"{hub.address}/datasets/me/digits/commit/{COMMIT}"
    assert [(each["name"], each["organization"], each["type"]) for each in hub.created] == [("digits", "me", "dataset")]
    page = hub.files["README.md"].decode()
    assert page.startswith("---\nlicense: cc-by-4.0\ntags:\n")
    assert "ddplug.hub.pull('me/digits')" in page
    back = ddplug.hub.pull("me/digits", token="t", endpoint=hub.address)
    assert torch.equal(back.inputs, made.inputs)
    assert back.provenance == made.provenance


def test_what_is_no_set_is_parsed_and_refused(hub: Hub) -> None:
    hub.files["set.safetensors"] = b"\x80\x04cos\nsystem\n."
    with pytest.raises(FormatError, match="is not a ddplug file"):
        ddplug.hub.pull("me/digits", token="t", endpoint=hub.address)


@pytest.mark.parametrize("repo,file", [("me/digits", "other.safetensors"), ("me/no/name", "set.safetensors")])
def test_what_is_not_there_is_one_line(hub: Hub, repo: str, file: str) -> None:
    with pytest.raises(OptionError, match=f"^cannot take {file} from {repo}: ") as caught:
        ddplug.hub.pull(repo, file=file, token="t", endpoint=hub.address)
    assert "\n" not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_one_line(hub: Hub) -> None:
    with pytest.raises(OptionError, match=r"^cannot put a set in me/digits: ") as caught:
        ddplug.hub.push(ddplug.load("digits-dm"), "me/digits", token="t", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"needs huggingface_hub.*run pip install huggingface_hub"):
        ddplug.hub.pull("me/digits")
