"""Agents: the package's own client calls the tools, in this process and over standard input and output."""

import importlib.util
import json
import shlex
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ablation_core.__main__ import main
from ablation_core.server.access import MOST_PREDICTIONS, Access, decide
from ablation_core.storage import CACHE, PROJECT

anyio = pytest.importorskip("anyio")
pytestmark = pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason="mcp is not installed")

OFFERED = Access(True, ("opt-mini", "vit-mini"), ("python-docs", "fashion-mnist"))
PATIENCE = 300  # seconds, for a machine that does much else


def with_client(server: Any, act: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `act` returns of a client that is connected to a server."""
    from mcp.client.client import Client

    async def connected() -> Any:
        with anyio.fail_after(PATIENCE):
            async with Client(server) as client:
                return await act(client)

    return anyio.run(connected)


@pytest.fixture(scope="module")
def call() -> Callable[..., Any]:
    """(tool, arguments) → its document, or the words of its refusal."""
    from ablation_core.server.mcp import build_server

    server = build_server(OFFERED)

    def calling(tool: str, **arguments: Any) -> Any:
        result = with_client(server, lambda client: client.call_tool(tool, arguments))
        text = result.content[0].text
        return text if result.is_error else json.loads(text)

    return calling


def again(command: str, capsys: pytest.CaptureFixture[str]) -> dict:
    """The document that a command prints."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "ablation_core"]
    assert main([*words[3:], "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_tools_say_what_there_is(call: Callable[..., Any]) -> None:
    found = call("models")
    assert [row["ref"] for row in found["models"]] == ["opt-mini", "vit-mini"]
    assert found["data"] == ["python-docs", "fashion-mnist"] and "mean" in found["methods"]
    assert found["limits"]["predictions"] == MOST_PREDICTIONS


def test_an_ablation_has_intervals_a_floor_and_the_command_that_repeats_it(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    found = call("ablate", model="opt-mini", select="5.2", methods=["mean", "zero"], predictions=1000)
    repeated = again(found["command"], capsys)
    for mine, row in zip(found["results"], repeated["results"], strict=True):
        change = mine["change"]["loss"]
        assert change["low"] <= change["mean"] <= change["high"]
        assert mine == row
        assert set(found["noise_floor"][mine["method"]]) == {"loss", "top1", "top10", "kl"}
    assert any("nats per prediction" in sentence for sentence in found["sentences"])


@pytest.mark.slow
def test_neurons_an_estimate_and_a_sweep(call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    neurons = call("statistics", model="opt-mini", select="3.2:5-6")
    assert neurons["neurons"] == again(neurons["command"], capsys)["neurons"] and len(neurons["neurons"]) == 2
    guess = call("estimate", model="opt-mini", predictions=64)
    repeated = again(guess["command"], capsys)
    largest = max(repeated["results"][0]["heads"], key=lambda head: head["loss"]["estimate"])
    assert guess["results"][0]["heads"][0] == largest
    head = call("head", model="opt-mini", head="3.2", predictions=128)
    repeated = again(head.pop("command"), capsys)
    assert head["scores"] == repeated["scores"] and head["total_effect"] == repeated["total_effect"]
    found = call("sweep", model="opt-mini", heads="5.2 5.3", predictions=128)
    assert [row["head"] for row in found["heads"]] == ["5.2", "5.3"]
    head = found["heads"][0]
    alone = again(head["command"], capsys)
    assert head["results"][0]["change"]["loss"] == alone["results"][0]["change"]["loss"]
    assert found["noise_floor"][0]["sets"] == 8 and "5.2" in found["sentences"][0] + str(found["heads"])


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("ablate", {"model": "gpt-nonsense", "select": "0.0"}, "does not offer the model 'gpt-nonsense'"),
        ("ablate", {"model": "../../etc", "select": "0.0"}, "does not offer the model"),
        ("ablate", {"model": "opt-mini", "select": "0.0", "data": "text:/etc/passwd"}, "does not offer the data"),
        ("ablate", {"model": "opt-mini", "select": "0.0", "predictions": 20_001}, "at most 20,000 predictions"),
        ("ablate", {"model": "opt-mini", "select": "9.0"}, "9.0"),
        ("ablate", {"model": "opt-mini", "select": "0.0", "methods": ["nonsense"]}, "nonsense"),
        ("statistics", {"model": "opt-mini", "select": "*.*"}, "At most 64 neurons"),
        ("sweep", {"model": "opt-mini", "predictions": 20_000}, "at most 100,000"),
        ("estimate", {"model": "opt-mini", "predictions": 20_001}, "at most 20,000 predictions"),
    ],
)
def test_what_is_not_offered_or_too_much_is_a_sentence(
    call: Callable[..., Any], tool: str, arguments: dict, words: str
) -> None:
    found = call(tool, **arguments)
    assert isinstance(found, str) and words in found and "Traceback" not in found


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("ablate", {"model": "opt-mini"}, "needs the argument select (a text)"),
        ("ablate", {"model": "opt-mini", "select": 32}, "argument select of the tool ablate is a text, not 32"),
        ("ablate", {"model": None, "select": "3.2"}, "needs the argument model"),
        ("ablate", {"model": "opt-mini", "select": "3.2", "predictions": "many"}, "is a whole number, not 'many'"),
        ("ablate", {"model": "opt-mini", "select": "3.2", "predictions": 10.5}, "is a whole number, not 10.5"),
        ("ablate", {"model": "opt-mini", "select": "3.2", "predictions": True}, "is a whole number, not True"),
        ("ablate", {"model": "opt-mini", "select": "3.2", "predictions": -5}, "at least 1, not -5"),
        ("ablate", {"model": "opt-mini", "select": "3.2", "methods": [3]}, "is a list of texts, not a list"),
        (
            "ablate",
            {"model": "opt-mini", "select": "3.2", "prediction": 50},
            "no argument 'prediction'; its arguments are",
        ),
        ("models", {"all": True}, "no argument 'all'; it takes none"),
        ("ablat", {}, "There is no tool 'ablat'; the tools are models, statistics, ablate"),
        ("head", {"model": "opt-mini", "head": "3"}, "Cannot read '3'"),
    ],
)
def test_arguments_that_do_not_fit_are_one_sentence(
    call: Callable[..., Any], tool: str, arguments: dict, words: str
) -> None:
    found = call(tool, **arguments)
    assert isinstance(found, str) and words in found and "\n" not in found and "pydantic" not in found


def test_what_is_clear_is_accepted() -> None:
    from ablation_core.server.agent_arguments import fit_arguments
    from ablation_core.server.agent_tools import Tools

    given = {
        "model": "opt-mini",
        "select": "3.2",
        "methods": "zero, mean",
        "predictions": " 50",
        "seed": 2.0,
        "data": None,
    }
    fitted = {"model": "opt-mini", "select": "3.2", "methods": ["zero", "mean"], "predictions": 50, "seed": 2}
    assert fit_arguments("ablate", Tools(OFFERED).ablate, given) == fitted


def test_the_limits_hold_without_the_shared_mode() -> None:
    access = decide({"ABLATION_SHARED": "1", "ABLATION_MODELS": "opt-mini"}, CACHE)
    assert access.shared and access.models == ("opt-mini",)


def test_the_command_speaks_over_standard_input_and_output() -> None:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    async def listed(client: Any) -> tuple[list[str], Any]:
        tools = await client.list_tools()
        return [tool.name for tool in tools.tools], await client.call_tool("models", {})

    command = StdioServerParameters(
        command=sys.executable,
        args=["-m", "ablation_core", "serve", "--mcp"],
        cwd=PROJECT,
        env={"ABLATION_MODELS": "opt-mini", "HF_HUB_OFFLINE": "1"},
    )
    names, models = with_client(stdio_client(command), listed)
    assert names == ["models", "statistics", "ablate", "estimate", "head", "sweep"]
    assert [row["ref"] for row in json.loads(models.content[0].text)["models"]] == ["opt-mini"]


def test_without_the_package_a_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name == "mcp" or name.startswith("mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert main(["serve", "--mcp"]) == 1
    shown = capsys.readouterr()
    assert "pip install ablation-explorer[mcp]" in shown.err and not shown.out
