"""Long runs and wrong files in a real browser: a sweep stopped half way, two people at once, an upload that cannot be."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ablation_core import ablate, load_data, load_model, load_statistics
from benchmarks.browser import CHROMIUM, ROOT, SETTLED, chromium, served
from tests.conftest import PATIENCE

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the bundled statistics and no run."""
    folder = tmp_path_factory.mktemp("cache") / "cached_stats"
    shutil.copytree(ROOT / "cached_stats", folder, ignore=shutil.ignore_patterns("runs", "models", "uploads"))
    return folder


@pytest.fixture(scope="module")
def address(cache: Path) -> Iterator[str]:
    with served({"ABLATION_CACHE": str(cache)}) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium() as browser:
        yield browser


@pytest.fixture
def person(browser) -> Iterator:
    """Opens pages, each as another person's browser."""
    contexts = []

    def opened(address: str):
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 1000}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


def shows(page, words: str) -> None:
    """Wait until the page says it."""
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words)


def no_traceback(page) -> bool:
    return page.locator('[data-testid="stException"]').count() == 0


def test_a_sweep_stopped_half_way_keeps_what_is_done(person, address: str, cache: Path) -> None:
    page = person(f"{address}/head_map?model=opt-mini&predictions=5000&methods=mean&method=mean")
    button = page.get_by_role("button", name="Measure 36 heads")
    button.wait_for()
    page.wait_for_selector(SETTLED)  # the estimate begins with the page, which is then drawn again
    button.click()
    shows(page, "measured so far")
    assert page.locator(".mark-rect path").count() >= 36, "estimates fill the map while it is measured"
    page.get_by_role("button", name="Stop").first.click()
    button = page.get_by_role("button", name="Continue:")
    button.wait_for()
    left = int(re.search(r"Continue: (\d+) head", button.inner_text())[1])
    (ledger,) = (cache / "runs").glob("sweep-*.jsonl")

    def kept() -> int:
        units = [json.loads(line)["piece"] for line in ledger.read_bytes().splitlines()[1:]]
        return sum(not unit.startswith("random") for unit in units)

    assert 0 < left < 36 and 36 - left <= kept() < 36, "what was done is kept; the piece under way may still come"
    text = page.inner_text('[data-testid="stMain"]')
    assert re.search(r"\(\d+ measured so far\)", text) and no_traceback(page)
    again = person(page.url)  # opened afresh: what is kept is there
    again.get_by_role("button", name="Continue:").wait_for()
    shows(again, "measured so far")
    assert re.search(r"\(\d+ measured so far\)", again.inner_text('[data-testid="stMain"]')) and no_traceback(again)


def test_two_people_at_once_get_their_own_right_numbers(person, address: str, cache: Path) -> None:
    wanted = (("opt-mini", "python-docs", "3.2", "mean"), ("roberta-mini", "python-docs", "1.0 2.1:0-3", "zero"))
    pages = [
        person(f"{address}/ablate?model={model}&predictions=500&select={select.replace(' ', '%20')}&method={method}")
        for model, _, select, method in wanted
    ]
    for page, (name, ref, select, method) in zip(pages, wanted, strict=True):
        shows(page, "Copy as Python")
        page.wait_for_selector(SETTLED)
        model = load_model(name)
        (path,) = [path for path in (cache / name).glob("*.safetensors") if path.name.startswith(f"{ref}-") and "full" not in path.name]  # fmt: skip
        result = ablate(model, load_data(ref, model, 500), select, method, statistics=load_statistics(path, model))
        before, after = result.baseline.loss, result.results[0].performance.loss
        shown = re.search(r"Loss, nats\s+([\d.]+) → ([\d.]+)", page.inner_text('[data-testid="stMain"]'))
        assert float(shown[1]) == pytest.approx(before, abs=2e-4) and float(shown[2]) == pytest.approx(after, abs=2e-4)
        assert no_traceback(page)


@pytest.mark.parametrize(
    ("box", "name", "content", "words"),
    [
        (0, "song.txt", b"\x00\x01\x02\x03", "binary"),
        (0, "pictures.zip", b"PK\x03\x04 this is no archive", "cannot be unpacked"),
        (1, "statistics.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense", "damaged"),
    ],
)
def test_a_wrong_file_gets_a_sentence(person, address: str, box: int, name: str, content: bytes, words: str) -> None:
    page = person(f"{address}/models_and_data")
    chooser = page.locator('input[type="file"]')
    chooser.nth(box).wait_for(state="attached")
    chooser.nth(box).set_input_files({"name": name, "mimeType": "application/octet-stream", "buffer": content})
    shows(page, words)
    assert no_traceback(page)
    assert page.locator('[data-testid="stAlert"]').filter(has_text=words).count() == 1, "said once"
