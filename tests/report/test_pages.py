"""The report and the review in a real Chromium, offline: with the keyboard, in the dark, on a phone, and attacked."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HOSTILE, Repository

pytestmark = pytest.mark.slow
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def pages(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The worse branch's report, and its review against main."""
    own = Repository(tmp_path_factory.mktemp("pages") / "own")
    shutil.copytree(repository.folder, own.folder, symlinks=True)
    own.run("git", "checkout", "--quiet", "worse")
    own.run("dvc", "checkout", "--quiet")
    own.run("python", "-m", "tools.review")
    return {"report": own.folder / "report/report.html", "review": own.folder / "review/review.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser, pages) -> Iterator[Any]:
    """Open a page offline; at the end, nothing may have gone wrong in it, nor may it have asked for anything."""
    contexts, wrong = [], []

    def opened(name: str, hash: str = "", **settings: Any) -> Any:
        context = browser.new_context(offline=True, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text))
        page.on("request", lambda request: request.url.startswith("file:") or wrong.append(request.url))
        page.goto(pages[name].as_uri() + hash)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def shown(page: Any) -> int:
    return page.locator(".prompts > tbody > tr:visible").count()


@pytest.mark.parametrize("name", ["report", "review"])
def test_what_a_model_wrote_stays_text(open_page, name):
    page = open_page(name)
    title = page.title()
    row = page.locator("tr", has_text="safe to unsafe").first
    row.locator("summary").click()
    said = row.locator("pre", has_text="script").first
    assert said.inner_text() == HOSTILE.replace("\u202e", "[U+202E]")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title() == title != "taken"


def test_hazard_content_is_folded_until_asked_for(open_page):
    page = open_page("report")
    assert page.locator("details[open]").count() == 0
    row = page.locator("#hazards-emb_vcr_01")
    assert not row.locator("pre").first.is_visible()
    row.locator("summary").click()
    assert row.locator("pre").first.is_visible()


def test_filters_search_and_links_from_the_review(open_page):
    page = open_page("report")
    everything = shown(page)
    assert page.locator(".count").inner_text() == f"{everything} of {everything} prompts shown"
    page.get_by_label("Set").select_option("hazards")
    page.get_by_label("Changed").select_option("lost")
    assert shown(page) == 40
    assert page.locator(".count").inner_text() == f"40 of {everything} prompts shown"
    assert page.url.endswith("#set=hazards&flip=lost")
    page.get_by_label("Words in prompt or response").fill("ONERROR  script")
    assert shown(page) == 40
    page.get_by_label("Words in prompt or response").fill("no such words anywhere")
    assert shown(page) == 0
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("location.hash === '#prompts'")
    assert shown(page) == everything
    linked = open_page("review", "#set=math&flip=won")
    assert shown(linked) == 5
    assert linked.get_by_label("Set").input_value() == "math"
    linked.evaluate("location.hash = '#set=hazards&flip=any'")
    linked.wait_for_function("document.querySelector('.count').textContent.startsWith('40 ')")


def test_everything_can_be_reached_with_the_keyboard(open_page):
    page = open_page("report")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the prompts"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "set"
    for _ in range(4):
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize("name", ["report", "review"])
def test_a_screen_reader_finds_its_way(open_page, name):
    page = open_page(name)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.get_by_role("main").count() == 1
    for figure in page.locator("figure").all():
        assert len(figure.get_attribute("aria-label")) > 20
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("th[scope=col]").count() > 0
    for control in page.locator("select, input").all():
        assert control.evaluate("control => control.labels.length") == 1
    assert page.get_by_role("status").count() == 1
    levels = [
        int(level)
        for level in page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName[1])")
    ]
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page, scheme):
    page = open_page("report", color_scheme=scheme)
    page.locator("#hazards-emb_vcr_01 summary").click()
    for selector in ("h1", ".soft", "caption", "thead th", "td.good", "td.bad", "span.lost", ".said pre", "summary"):
        element = page.locator(selector).first
        colors = element.evaluate(
            """element => {
                const back = []
                for (let each = element; each; each = each.parentElement) {
                    back.push(getComputedStyle(each).backgroundColor)
                }
                return [getComputedStyle(element).color, back.find(color => !color.endsWith(', 0)'))]
            }"""
        )
        assert contrast(*colors) >= 4.5, (selector, colors)  # WCAG 2.2, AA


def contrast(text: str, back: str) -> float:
    """WCAG's contrast ratio of two `rgb(r, g, b)` colours."""

    def luminance(color: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    bright, dark = sorted((luminance(text), luminance(back)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", ["report", "review"])
def test_a_phone_shows_it_without_sideways_scrolling(open_page, name):
    page = open_page(name, "#set=hazards&flip=lost", viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert shown(page) == 40


def test_without_javascript_every_prompt_is_there(browser, pages):
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["report"].as_uri())
    assert shown(page) > 300
    assert not page.locator(".filters").is_visible()
    context.close()
