"""`app`: open the explorer. Streamlit runs the pages where they are, in the source tree or in the installed package."""

import argparse
import os
import sys
import tomllib

from ablation_core.storage import APP


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, help="where it listens (default 8501)")
    parser.add_argument("--address", help="for others on the network: 0.0.0.0 (default: this machine only)")
    parser.add_argument("--no-browser", action="store_true", help="open no browser")
    parser.epilog = (
        "Streamlit's other settings are taken from its environment variables, such as STREAMLIT_SERVER_BASE_URL_PATH."
    )


def run(parsed: argparse.Namespace) -> tuple[dict, str]:
    """Becomes the server; does not return."""
    sys.stdout.flush()
    os.execv(sys.executable, streamlit_command(parsed))


def streamlit_command(parsed: argparse.Namespace) -> list[str]:
    """Streamlit looks for settings in the folder where it is started, which is the user's: so they are spelled out."""
    settings = _flat(tomllib.loads((APP / ".streamlit" / "config.toml").read_text(encoding="utf-8")))
    settings = {name: value for name, value in settings.items() if _variable(name) not in os.environ}
    given = {"server.port": parsed.port, "server.address": parsed.address}
    settings |= {name: str(value) for name, value in given.items() if value is not None}
    if parsed.no_browser:
        settings["server.headless"] = "true"
    words = [f"--{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "streamlit", "run", str(APP / "app.py"), *words]


def _flat(table: dict, before: str = "") -> dict[str, str]:
    """`{"theme": {"font": "serif"}}` → `{"theme.font": "serif"}`."""
    flat: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[before + name] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def _variable(setting: str) -> str:
    """server.maxUploadSize → STREAMLIT_SERVER_MAX_UPLOAD_SIZE, which takes precedence where it is set."""
    letters = "".join(f"_{letter}" if letter.isupper() else letter for letter in setting.replace(".", "_"))
    return f"STREAMLIT_{letters.upper()}"
