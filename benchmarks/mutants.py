"""Mutation tests of the modules whose numbers everything rests on: `python benchmarks/mutants.py stats.intervals`.

Each mutant is the module with one small change by mutmut's operators (another number, `<` for `<=`, an argument left
out, …); it is killed when a test of the module fails. mutmut itself leaves decorated functions alone, of which some of
these modules consist, and imports everything again for each; here the tests are collected once, and each mutant runs
them in a fork with its functions' code put in place of the original's. Mutants outside functions are imported again, and
so is, once more, what survives. Results are saved, so that a run resumes where the last one stopped. Not mutated:
annotations, docstrings, decorators, imports, the texts of errors; of other texts the words, but not their case.

Needs `pip install mutmut`.
"""

import argparse
import ast
import functools
import gc
import importlib.machinery
import importlib.util
import json
import os
import resource
import signal
import sys
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parent.parent
TESTS = {  # module → its own tests, without those that only repeat others on real models or many times
    "selection": ["tests/test_selection.py"],
    "activations.accumulator": ["tests/activations/test_statistics.py"],
    "activations.statistics": ["tests/activations/test_statistics.py"],
    "engine.metrics": ["tests/engine/test_scores.py", "-k", "not covers_the_truth"],
    "engine.hooks": ["tests/engine/test_hooks.py"],
    "methods.registry": ["tests/methods/test_registry.py", "-k", "table"],
    "stats.intervals": ["tests/stats/test_intervals.py", "-k", "not covers_the_truth"],
}
LIBRARIES = ("torch", "scipy.stats", "scipy.signal", "scipy.ndimage", "safetensors.numpy", "transformers", "psutil")
OPTIONS = ("-q", "-n0", "-m", "", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no")


@dataclass(frozen=True)
class Mutant:
    """One change of a module: where it is, the line before and after, and the whole changed source."""

    line: int
    before: str
    after: str
    source: str
    in_function: bool

    @property
    def key(self) -> str:
        return f"{self.line}: {self.before} → {self.after}"


class _Nodes(cst.CSTVisitor):
    """The nodes that may be mutated, with their positions."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[int, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise)):
            return False
        if isinstance(node, cst.Expr) and isinstance(node.value, cst.BaseString):
            return False
        self.found.append((self.get_metadata(PositionProvider, node).start.line, node))
        return True


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a source that is still Python and not the same program."""
    wrapper = MetadataWrapper(cst.parse_module(source))
    nodes, tree = _Nodes(), ast.parse(source)
    wrapper.visit(nodes)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    seen = {ast.dump(tree)}
    for line, node in nodes.found:
        inside = any(function.lineno <= line <= function.end_lineno for function in functions)
        for kind, operator in mutation_operators:
            changes = list(operator(node)) if isinstance(node, kind) else []
            for changed in changes[:1] if isinstance(node, cst.BaseString) else changes:
                text = wrapper.module.deep_replace(node, changed).code
                try:
                    form = ast.dump(ast.parse(text))
                except SyntaxError:
                    continue
                if form not in seen:
                    seen.add(form)
                    yield Mutant(line, *_changed_lines(source, text), text, inside)


def _changed_lines(source: str, text: str) -> tuple[str, str]:
    before, after = source.splitlines(), text.splitlines()
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    return tuple(" ".join(" ".join(lines).split()) for lines in (before, after))


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from another source than its file's."""

    source = ""

    def get_code(self, fullname: str):
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder:
    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.loader = name, _Loader(name, str(path))
        self.loader.source = source

    def find_spec(self, name: str, path: object, target: object = None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.loader.path, loader=self.loader)
        return None


def forked(work: Callable[[], bool], seconds: int) -> tuple[str, float]:
    """Do the work in a fork, silently: ("survived" if it is true, else "killed" | "timeout", CPU seconds)."""
    child = os.fork()
    if child == 0:
        survived = False
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            signal.alarm(20 * seconds)  # a mutant may wait for something that never comes
            survived = work()
        finally:
            os._exit(0 if survived else 1)
    _, status, used = os.wait4(child, 0)
    outcome = "timeout" if os.WIFSIGNALED(status) else "killed" if os.WEXITSTATUS(status) else "survived"
    return outcome, used.ru_utime + used.ru_stime


class Results:
    """What is known of a module's mutants, kept in a file."""

    def __init__(self, path: Path, wanted: list[Mutant]) -> None:
        known = json.loads(path.read_text()) if path.exists() else {}
        self.path, self.wanted = path, wanted
        self.known: dict[str, str] = {m.key: known[m.key] for m in wanted if m.key in known}

    def forget_survivors(self) -> None:
        self.known = {key: outcome for key, outcome in self.known.items() if outcome != "survived"}
        self._write()

    def to_swap(self) -> list[Mutant]:
        return [m for m in self.wanted if m.in_function and m.key not in self.known]

    def to_import(self) -> list[Mutant]:
        """Those outside functions, and survivors: what a module's functions did while it was imported stays done."""
        return [m for m in self.wanted if self.known.get(m.key, not m.in_function) in (True, "survived in place")]

    def add(self, mutant: Mutant, outcome: str) -> None:
        self.known[mutant.key] = outcome
        self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(self.known, ensure_ascii=False, indent=1))


class Collected:
    """A pytest plugin that, instead of running the tests once, runs them once for each mutant."""

    def __init__(self, module: str, source: str, results: Results, until: float) -> None:
        self.module, self.source, self.results, self.until = f"ablation_core.{module}", source, results, until

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: hasattr(item.function, "hypothesis"))  # single examples are the quickest to fail

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        def passes(source: str) -> bool:
            put_in_place(sys.modules[self.module], source)
            following = [*session.items[1:], None]
            return not any(
                report.failed
                for item, later in zip(session.items, following, strict=True)
                for report in runtestprotocol(item, log=False, nextitem=later)
            )

        began = time.process_time()
        if not passes(self.source):  # here, so that what the libraries make at first use is there in every fork
            raise SystemExit("The tests fail on the module as it is.")
        usual = time.process_time() - began
        print(f"the tests take {usual:.1f} s of a processor", flush=True)
        gc.freeze()
        for mutant in self.results.to_swap():
            if time.monotonic() > self.until:
                break
            work = functools.partial(passes, mutant.source)
            outcome, _ = forked(work, int(3 * usual) + 5)
            self.results.add(mutant, "survived in place" if outcome == "survived" else outcome)
        return True


def put_in_place(module: types.ModuleType, source: str) -> None:
    """Give the module's functions and methods the code that they have in this source."""
    other = types.ModuleType(module.__name__)
    exec(compile(source, str(module.__file__), "exec", dont_inherit=True), other.__dict__)
    _swap(module.__dict__, other.__dict__, module.__name__)


def _swap(old: dict, new: dict, module: str) -> None:
    for name, value in new.items():
        if getattr(value, "__module__", module) != module or name not in old:
            continue
        if isinstance(value, type):
            _swap(dict(vars(old[name])), dict(vars(value)), module)
        elif (function := _function(value)) is not None:
            mine = _function(old[name])
            mine.__code__, mine.__defaults__ = function.__code__, function.__defaults__
            mine.__kwdefaults__ = function.__kwdefaults__


def _function(value: object) -> types.FunctionType | None:
    """The function inside a method, a property or a decorator."""
    for name in ("__wrapped__", "__func__", "fget", "func"):
        if hasattr(value, name):
            return _function(getattr(value, name))
    return value if isinstance(value, types.FunctionType) else None


def source_path(module: str) -> Path:
    return ROOT / "ablation_core" / f"{module.replace('.', '/')}.py"


def imported(module: str, source: str) -> bool:
    """Whether the tests pass with the module imported from this source."""
    sys.meta_path.insert(0, _Finder(f"ablation_core.{module}", source_path(module), source))
    return pytest.main([*OPTIONS, "-x", *TESTS[module]]) == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("module", choices=TESTS)
    parser.add_argument("--seconds", type=float, default=280, help="stop after so many seconds; run again to resume")
    parser.add_argument("--results", type=Path, default=ROOT / "mutants", help="the folder of results")
    parser.add_argument("--again", action="store_true", help="test those that survived once more")
    parsed = parser.parse_args()
    until = time.monotonic() + parsed.seconds
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["OMP_NUM_THREADS"] = "1"
    phases = [Phase.explicit, Phase.generate]  # a failing example need not be made small
    settings.register_profile("mutants", phases=phases, database=None, deadline=None, max_examples=30)
    settings.load_profile("mutants")
    for name in LIBRARIES:
        importlib.import_module(name)
    parsed.results.mkdir(exist_ok=True)
    kept = parsed.results / f"{parsed.module}.json"
    source = source_path(parsed.module).read_text()
    every = list(mutants(source))
    if parsed.again:
        Results(kept, every).forget_survivors()
    if os.fork() == 0:  # this process stays without the package, for those that are to be imported again
        plugin = Collected(parsed.module, source, Results(kept, every), until)
        os._exit(int(pytest.main([*OPTIONS, *TESTS[parsed.module]], plugins=[plugin])))
    if os.wait()[1]:
        raise SystemExit(1)
    results = Results(kept, every)
    for mutant in results.to_import():
        if time.monotonic() > until:
            break
        results.add(mutant, forked(functools.partial(imported, parsed.module, mutant.source), 60)[0])
    for key, outcome in results.known.items():
        if outcome == "survived":
            print(key)
    counts = dict(Counter(results.known.values()))
    print(f"{parsed.module}: {len(every)} mutants, {counts}, {len(every) - len(results.known)} to do")


if __name__ == "__main__":
    main()
