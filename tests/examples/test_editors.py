"""What an editor shows of a handler or a processor: each option, with its type, its default and a sentence."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jedi
import pytest

import pawprint_logging
from pawprint_logging import PawprintHandler, PawprintProcessor

MAKERS = [PawprintHandler, PawprintProcessor]
#: the folder of the package: editors read source, and import nothing
SOURCE = str(Path(pawprint_logging.__file__).parents[1])


def program(maker: type, call: str) -> str:
    return f"from pawprint_logging import {maker.__name__}\n{maker.__name__}({call}"


def assert_all_is_shown(text: str, maker: type) -> None:
    def plain(text: str) -> str:
        return re.sub(r"\b(os|logging)\.", "", re.sub(r" ?= ?", "=", " ".join(text.split())))

    for name, parameter in inspect.signature(maker).parameters.items():
        default = f'"{parameter.default}"' if isinstance(parameter.default, str) else ""
        assert plain(f"{name}: {parameter.annotation} = {default}") in plain(text), name
        assert re.search(rf" {name}: [A-Z].*?\. Default: \S", plain(text).partition(" Args:")[2]), name


@pytest.mark.parametrize("maker", MAKERS)
def test_jedi(maker: type) -> None:
    text = program(maker, "")
    project = jedi.Project(SOURCE)
    (signature,) = jedi.Script(text, project=project).get_signatures(2, len(text.splitlines()[1]))
    assert [each.name for each in signature.params] == list(inspect.signature(maker).parameters)
    assert_all_is_shown(signature.docstring(), maker)

    text = program(maker, "flush_in")
    found = jedi.Script(text, project=project).complete(2, len(text.splitlines()[1]))
    assert "flush_interval=" in [each.name_with_symbols for each in found]


class Pyright:
    """pyright as editors run it, which asks it by the language server protocol.

    Args:
        folder: where the programs are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._server = subprocess.Popen(
            [str(Path(sys.executable).parent / "pyright-langserver"), "--stdio"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        plain = {"hover": {"contentFormat": ["plaintext"]}}
        self._ask(
            "initialize",
            processId=None,
            rootUri=folder.as_uri(),
            workspaceFolders=[{"uri": folder.as_uri(), "name": "shop"}],
            capabilities={"textDocument": plain},
        )
        self._send({"method": "initialized", "params": {}})

    def hover(self, text: str, line: int, column: int) -> str:
        """Return what it shows of what stands there, both from 0."""
        uri = (self._folder / "program.py").as_uri()
        document = {"uri": uri, "languageId": "python", "version": 1, "text": text}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        found = self._ask("textDocument/hover", textDocument={"uri": uri}, position={"line": line, "character": column})
        return str(found["contents"]["value"])

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._server.stdout is not None
        size = 0
        while header := self._server.stdout.readline().strip():
            if header.lower().startswith(b"content-length"):
                size = int(header.split(b":")[1])
        assert size, "it has ended"
        received: dict[str, Any] = json.loads(self._server.stdout.read(size))
        return received

    def _ask(self, method: str, **params: Any) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._receive()
            if "method" not in message:
                if message["id"] == self._number:
                    return message["result"]
            elif "id" in message:  # it asks for settings of the editor's, of which there are none
                items = message.get("params", {}).get("items", [])
                self._send({"id": message["id"], "result": [{} for _ in items] or None})


@pytest.mark.parametrize("maker", MAKERS)
def test_pyright(maker: type, tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [SOURCE]}), "utf-8")
    pyright = Pyright(tmp_path)
    try:
        assert_all_is_shown(pyright.hover(program(maker, ")"), 1, 3), maker)
    finally:
        pyright.close()
