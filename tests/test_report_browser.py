"""The page in a real browser, headless: it is quiet, sorts, filters, prints, and works without script."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_place import HOSTILE, Place, add_run, make_place

from docs.picture import browser as open_browser
from docs.picture import installed, show

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium under ChromeDriver, as they are installed; without them these tests are skipped."""
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if installed() is None:
        pytest.skip("no browser: install chromium and chromium-driver to run these tests")
    with open_browser() as driver:
        yield driver


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Ten classes with hostile names, eight probes, no fine-tuned run."""
    return make_place(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it, moved away from all that made it."""
    add_run(place, "tuned", wrong=40, val_top1=1.0)  # so that it is the model to use
    path = tmp_path_factory.mktemp("sent") / "page.html"
    shutil.copy(place.write().path, path)
    return path


def cells(browser: Any, table: str, column: int) -> list[str]:
    """Texts of a column in the rows that are shown."""
    script = (
        f"return [...document.querySelector('{table}').tBodies[0].rows].filter(r => !r.hidden && r.offsetParent)"
        f".map(r => r.cells[{column}].textContent)"
    )
    return browser.execute_script(script)


def click_head(browser: Any, table: str, name: str) -> str | None:
    """Click the button of a column; return what it then says of its order."""
    script = (
        f"const b = [...document.querySelectorAll('{table} th button')].find(b => b.textContent === arguments[0]);"
        "b.click(); return b.parentElement.getAttribute('aria-sort')"
    )
    return browser.execute_script(script, name)


BOARD = "#leaderboard table[data-filter]"


def test_it_loads_without_a_message_and_without_a_request(browser: Any, page: Path) -> None:
    for log in ("browser", "performance"):
        browser.get_log(log)
    show(browser, page)
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]  # fmt: skip
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


def test_a_script_that_is_not_ours_does_not_run(browser: Any, page: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    attack = "<script>window.bad = 1</script><img src=x onerror='window.bad = 2'><style>body{margin:99px}</style>"
    changed.write_text(page.read_text(encoding="utf-8").replace("</main>", attack + "</main>"))
    show(browser, changed)
    assert browser.execute_script("return window.bad") is None
    assert browser.execute_script("return getComputedStyle(document.body).marginTop") == "0px"
    assert any("Content Security Policy" in entry["message"] for entry in browser.get_log("browser"))  # fmt: skip


def test_a_hostile_class_name_is_text(browser: Any, page: Path) -> None:
    show(browser, page)
    assert browser.execute_script("return document.querySelectorAll('img[src=\"x\"]').length") == 0
    assert HOSTILE in browser.execute_script("return document.querySelector('#mistakes').innerText")
    figure = "return document.querySelector('#figure-confusion svg').textContent"
    assert "<img src=x" in browser.execute_script(figure)


def test_columns_sort_by_their_numbers_both_ways(browser: Any, page: Path) -> None:
    show(browser, page)
    assert click_head(browser, BOARD, "val top-1") == "descending"
    found = [float(text.split()[0]) for text in cells(browser, BOARD, 3)]
    assert found == sorted(found, reverse=True) and len(found) == 10
    assert click_head(browser, BOARD, "val top-1") == "ascending"
    assert [float(text.split()[0]) for text in cells(browser, BOARD, 3)] == sorted(found)
    assert click_head(browser, BOARD, "features") == "ascending"
    texts = [text.lower() for text in cells(browser, BOARD, 1)]
    assert texts[0].startswith("none") and texts.index("toy@8") < texts.index("toy@16")
    assert click_head(browser, BOARD, "images/s") == "descending"
    assert cells(browser, BOARD, 9)[-2:] == ["–", "–"]  # what was not measured comes last
    assert click_head(browser, BOARD, "images/s") == "ascending"
    assert cells(browser, BOARD, 9)[-2:] == ["–", "–"]
    sorted_heads = "return document.querySelectorAll('#leaderboard th[aria-sort]').length"
    assert browser.execute_script(sorted_heads) == 1


def type_in(browser: Any, section: str, text: str) -> str:
    """Type into the filter of a section; return what it says."""
    field = browser.find_element("css selector", f"#{section} .filter input")
    field.clear()
    field.send_keys(text)
    return browser.find_element("css selector", f"#{section} .filter [role=status]").text


def test_lines_are_filtered_by_all_words(browser: Any, page: Path) -> None:
    show(browser, page)
    assert type_in(browser, "leaderboard", "RIDGE toy@16") == "1 of 10 lines"
    assert cells(browser, BOARD, 2) == ["ridge"]
    click_head(browser, BOARD, "val top-1")  # sorting leaves the filter
    assert cells(browser, BOARD, 2) == ["ridge"]
    assert type_in(browser, "leaderboard", "nothing like it") == "0 of 10 lines"
    assert type_in(browser, "leaderboard", " ") == "" and len(cells(browser, BOARD, 2)) == 10


def test_classes_are_searched(browser: Any, page: Path) -> None:
    show(browser, page)
    assert type_in(browser, "mistakes", "onerror").endswith("of 10 classes")
    shown = cells(browser, "#mistakes table[data-filter]", 0)
    assert HOSTILE in shown and len(shown) < 10


def test_everything_is_reached_by_keyboard_and_named(browser: Any, page: Path) -> None:
    show(browser, page)
    nameless = (
        "return [...document.querySelectorAll('img, svg[role=img], input, [role=region]')].filter(e =>"
        " !(e.alt || e.ariaLabel || e.labels?.length || e.getAttribute('aria-labelledby'))).length"
    )
    assert browser.execute_script(nameless) == 0
    order = "return [...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])"
    levels = browser.execute_script(order)
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    button = browser.find_element("css selector", BOARD + " th button")
    button.send_keys("\ue007")  # Enter
    assert browser.execute_script(f"return document.querySelector('{BOARD} th').ariaSort") == "ascending"  # fmt: skip
    scrolled = "return [...document.querySelectorAll('.wide')].every(e => e.tabIndex === 0)"
    assert browser.execute_script(scrolled)


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("width", [1440, 390])
def test_a_long_class_name_fits_a_narrow_window(browser: Any, place: Place, tmp_path: Path, width: int) -> None:  # fmt: skip
    # the winner's most frequent mistake is the class whose name is one word of 90 letters
    place.folder.joinpath("finetune").rename(tmp_path / "away")
    try:
        path = place.write().path
    finally:
        (tmp_path / "away").rename(place.folder / "finetune")
    show(browser, Path(path), width)
    still_wrong = "return document.querySelector('.winner dl').innerText"
    assert "xxxxxxxxxxxxxxxxxxxxxxxx" in browser.execute_script(still_wrong)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 768, 390])
def test_it_fits_every_width_and_the_thumbnails_are_seen(browser: Any, page: Path, width: int, scheme: str) -> None:  # fmt: skip
    show(browser, page, width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    images = browser.execute_script(
        "return [...document.querySelectorAll('.sheet > li > img')].map(i => [i.naturalWidth, i.width])"
    )
    assert len(images) == 24 and all(natural == 8 and shown > 60 for natural, shown in images)
    near = browser.execute_script(
        "return [...document.querySelectorAll('.near img')].map(i => [i.naturalWidth, i.width])"
    )
    assert len(near) == 3 * 24 and all(natural == 8 and shown > 15 for natural, shown in near)
    small = browser.execute_script(
        "return [...document.querySelectorAll('figure svg text')].map(t => {"
        " const m = t.getScreenCTM(); return Math.hypot(m.a, m.b) * parseFloat(getComputedStyle(t).fontSize)})"
    )
    assert min(small) >= 9.5
    broken = browser.execute_script(
        "return [...document.querySelectorAll('.flag')].map(f => [f.textContent, f.getClientRects().length])"
    )
    assert {lines for _, lines in broken} == {1} and "--dataset" in {flag for flag, _ in broken}
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def test_print_fits_the_paper_and_is_light(browser: Any, page: Path) -> None:
    show(browser, page, 718, scheme="dark")  # the width of A4 within its margins
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 718
    wide = "return [...document.querySelectorAll('.wide table')].filter(t => t.offsetParent && t.scrollWidth > 718).length"
    assert browser.execute_script(wide) == 0
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"  # fmt: skip
    hidden = "return getComputedStyle(document.querySelector('.filter')).display"
    assert browser.execute_script(hidden) == "none"
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


def test_a_point_of_the_map_shows_its_image_and_no_other(browser: Any, page: Path) -> None:
    """By pointing at it and by keyboard; one stop of the tab key for the whole map."""
    from selenium.webdriver import ActionChains, Keys

    show(browser, page)
    shown = (
        "return [...document.querySelectorAll('.point')].map((p, i) => [i, getComputedStyle(p.querySelector('.shown'))"
        ".display]).filter(([i, display]) => display !== 'none').map(([i]) => i)"
    )
    assert browser.execute_script(shown) == []
    stops = "return document.querySelectorAll('.point[tabindex=\"0\"]').length"
    assert browser.execute_script(stops) == 1
    browser.execute_script("document.querySelectorAll('.point')[0].focus()")
    assert browser.execute_script(shown) == [0]
    active = browser.switch_to.active_element
    active.send_keys(Keys.ARROW_RIGHT)
    assert browser.execute_script(shown) == [1]
    place = "const p = document.querySelectorAll('.point')[5]; p.scrollIntoView({block: 'center'}); return p"
    over = browser.execute_script(place)
    ActionChains(browser).move_to_element(over.find_element("css selector", "g use")).perform()
    (found,) = browser.execute_script(
        shown
    )  # 5, or one that lies over it; the focused one gives way
    assert found != 1


def test_it_is_whole_without_script(browser: Any, page: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, page)
        count = len(browser.find_elements("css selector", BOARD + " tbody tr"))
        buttons = browser.find_elements("css selector", "button, input")
        pictures = browser.find_elements("css selector", "figure svg, .sheet img")
        points = browser.find_elements("css selector", ".point[tabindex='0']")
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert count == 10 and not buttons and len(pictures) > 30 < len(points)
