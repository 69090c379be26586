"""The server of the load test, which writes down what it holds: `python -m benchmarks.load_server PORT REPORT`."""

import gc
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
EVERY = 10.0  # seconds between two looks at the server


def serve(port: int, report: Path) -> None:
    """The server, with a thread that writes down what it holds."""
    from streamlit.web import cli

    threading.Thread(target=_watch, args=(report,), daemon=True).start()
    sys.argv = ["streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port), "--server.headless", "true"]
    sys.argv += ["--server.fileWatcherType", "none"]
    cli.main()


def _watch(report: Path) -> None:
    from ablation_core.data.dataset import Data
    from ablation_core.engine.clean_passes import CleanPassCache
    from ablation_core.models.loaded import LoadedModel

    process, rows = psutil.Process(), []
    while True:
        time.sleep(EVERY)
        gc.collect()
        found = [one for one in gc.get_objects() if type(one) in (LoadedModel, CleanPassCache, Data)]
        kinds = Counter(type(one).__name__ for one in found)
        hooks = {
            name for one in found if type(one) is LoadedModel and one.lock.acquire(timeout=60) for name in hooks_on(one)
        }
        row = {
            "seconds": time.monotonic(),
            "megabytes": process.memory_info().rss >> 20,
            "threads": process.num_threads(),
        }
        rows.append(row | {"models": kinds["LoadedModel"], "recordings": kinds["CleanPassCache"], "data": kinds["Data"], "hooks": sorted(hooks)})  # fmt: skip
        partial = report.with_suffix(".partial")
        partial.write_text(json.dumps(rows))
        partial.replace(report)
        del found


def hooks_on(model: object) -> list[str]:
    """The hooks on a model whose lock is held here: between two steps there must be none."""
    try:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        parts = list(model.module.named_modules())
        found = [f"{model.ref} {name} {kind}" for name, part in parts for kind in kinds if getattr(part, kind)]
        return found + [f"{model.ref} {name} forward" for name, part in parts if "forward" in vars(part)]
    finally:
        model.lock.release()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]))
