"""Real Chromium: annotators vote by keyboard, mouse and touch, on images and videos, and the report is right to the vote."""

import json
from collections import Counter

import pytest
from PIL import Image
from playwright.sync_api import Page
from support import browser
from support.hostile import PROMPTS as HOSTILE
from support.studies import Session, folder_of_samples, hosting, serving, small_study

from sipo.annotate.ballots import read_ballots
from sipo.annotate.create import CreateRequest, create
from sipo.annotate.store import open_store
from sipo.annotate.study import Plan, read_study

pytestmark = pytest.mark.services
LEVELS = """() => [...document.querySelectorAll('#results img, #results video')].map((it) => {
  const c = document.createElement('canvas'); c.width = c.height = 8;
  const x = c.getContext('2d'); x.drawImage(it, 0, 0, 8, 8);
  return [...x.getImageData(0, 0, 8, 8).data].filter((_, n) => n % 4 < 3).reduce((a, b) => a + b) / 192; })"""


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as opened:
        yield opened


def opened(chromium, link: str, **options) -> Page:
    """A page at a personal link, past its guideline; complaints and requests are collected on it."""
    page = chromium.new_context(viewport={"width": 1200, "height": 760}, **options).new_page()
    page.complaints, page.requests = [], []
    page.on(
        "console",
        lambda message: page.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(link)
    page.wait_for_selector("dialog[open]")
    page.click("#start")
    page.wait_for_selector("body[data-slot]")
    return page


def vote(page: Page, act) -> None:
    """Act, and wait for the next item or the end."""
    slot = page.evaluate("document.body.dataset.slot")
    act()
    page.wait_for_function(
        "(slot) => ![slot, undefined].includes(document.body.dataset.slot) || document.querySelector('#judge').hidden",
        arg=slot,
    )


def ballots(study) -> dict[tuple[str, str], str]:
    """(annotator, prompt) -> the system that was preferred, or tie, or bad."""
    with open_store(study, read_study(study)) as store:
        found, _ = read_ballots(store)
    return {(b.annotator, b.prompt): {"a": b.systems[0], "b": b.systems[1]}.get(b.label, b.label) for b in found}


def test_images_by_keyboard_mouse_and_touch(chromium, tmp_path):
    study = small_study(tmp_path, 6, plan=Plan(1, 3, 3), both_bad=True)
    expected = {}
    with hosting(study) as server:
        links = server.links()
        keys = opened(chromium, links["g1-1"])
        for n in range(6):
            prompt = keys.text_content("#prompt")
            levels = keys.evaluate(LEVELS)
            assert sorted(round(level, -1) for level in levels) == [60, 180]
            brighter = levels[0] > levels[1]
            key, result = [
                ("ArrowLeft" if brighter else "ArrowRight", "s180"), ("ArrowRight" if brighter else "ArrowLeft", "s60"),
                ("ArrowDown", "tie"), ("x", "bad"),
            ][n % 4]  # fmt: skip
            expected["g1-1", prompt] = result
            vote(keys, lambda key=key: keys.keyboard.press(key))
        assert keys.text_content(".message h1") == "Thank you!"
        mouse = opened(chromium, links["g1-2"])
        for n in range(6):
            prompt, levels = mouse.text_content("#prompt"), mouse.evaluate(LEVELS)
            text = ["A is better", "B is better", "Tie"][n % 3]
            expected["g1-2", prompt] = "tie" if n % 3 == 2 else "s180" if levels[n % 3] > levels[1 - n % 3] else "s60"
            vote(mouse, lambda text=text: mouse.get_by_role("button", name=text).click())
        phone = opened(chromium, links["g1-3"], has_touch=True, is_mobile=True)
        phone.set_viewport_size({"width": 390, "height": 780})
        fits = "[innerWidth, document.documentElement.scrollWidth, document.querySelector('nav').getBoundingClientRect().right <= 390]"
        for _ in range(6):
            assert phone.evaluate(fits) == [390, 390, True]
            expected["g1-3", phone.text_content("#prompt")] = "tie"
            vote(phone, lambda: phone.get_by_role("button", name="Tie").tap())
        for page in (keys, mouse, phone):
            assert page.complaints == []
            assert all(url.startswith((server.url, "blob:")) for url in page.requests)
            media = [url for url in page.requests if "/media/" in url]
            assert len(set(media)) == len(media) == 12  # each result once: what was loaded ahead was used
    assert ballots(study) == expected
    assert Counter(expected.values()) == Counter(ballots(study).values())


def test_undo_break_zoom_and_return(chromium, tmp_path):
    study = small_study(tmp_path, 4)
    with hosting(study) as server:
        page = opened(chromium, server.links()["g1-1"])
        first = page.text_content("#prompt")
        vote(page, lambda: page.keyboard.press("ArrowLeft"))
        vote(page, lambda: page.keyboard.press("u"))
        assert page.text_content("#prompt") == first
        page.keyboard.press("z")
        transforms = "[...document.querySelectorAll('#results img')].map((it) => it.style.transform)"
        left, right = page.evaluate(transforms)
        assert left == right != ""
        page.mouse.move(300, 300)
        page.mouse.wheel(0, -200)
        assert page.evaluate(transforms)[0] != left
        assert len(set(page.evaluate(transforms))) == 1
        page.keyboard.press("p")
        page.wait_for_selector("#resume:visible")
        page.keyboard.press("ArrowLeft")  # nothing is answered during a break
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-slot]")
        assert page.text_content("#prompt") == first
        vote(page, lambda: page.keyboard.press("ArrowRight"))
        other = chromium.new_context().new_page()  # another device
        other.goto(server.links()["g1-1"])
        other.wait_for_selector("body[data-slot]")
        assert other.text_content("#count") == "1 of 4"
        assert page.complaints == []
    assert len(ballots(study)) == 1


def test_videos_play_in_step_and_are_voted_on(chromium, tmp_path):
    study = small_study(tmp_path, 3, video=True)
    times = "[...document.querySelectorAll('#results video')].map((it) => it.currentTime)"
    expected = {}
    with hosting(study) as server:
        page = opened(chromium, server.links()["g1-1"])
        for n in range(3):
            page.wait_for_function(f"() => {times}.every((t) => t > 0.2)")
            a, b = page.evaluate(times)
            assert abs(a - b) < 0.15
            page.keyboard.press(" ")
            a, b = page.evaluate(times)
            assert a == pytest.approx(b, abs=0.02)
            page.wait_for_timeout(150)
            assert page.evaluate(times) == pytest.approx([a, b], abs=0.02)
            page.keyboard.press(" ")
            page.wait_for_function(f"() => {times}.some((t) => t < {a})", timeout=10_000)  # the loop begins again
            levels = page.evaluate(LEVELS)
            expected["g1-1", page.text_content("#prompt")] = "s180" if (n == 0) == (levels[0] > levels[1]) else "s60"
            vote(page, lambda n=n: page.keyboard.press("ArrowLeft" if n == 0 else "ArrowRight"))
        assert page.complaints == []
    assert ballots(study) == expected


def test_a_ranking_by_keys_and_mouse(chromium, tmp_path):
    study = small_study(tmp_path, 2, levels=(40, 120, 200), mode="ranking", dimensions=("text", "quality"))
    with hosting(study) as server:
        page = opened(chromium, server.links()["g1-1"])
        for n in range(2):
            levels = page.evaluate(LEVELS)
            order = sorted(range(3), key=lambda place: -levels[place])  # the brightest first
            for place in order[:2]:
                page.keyboard.press(str(place + 1))
            if n == 0:
                page.keyboard.press("Backspace")  # takes back the last two, of which one was filled in
                page.keyboard.press(str(order[1] + 1))
            for place in reversed(order):
                if page.locator(".rank").nth(1).locator(".pick").nth(place).get_attribute("class") == "pick":
                    page.locator(".rank").nth(1).locator(".pick").nth(place).click()
            vote(page, lambda: page.keyboard.press("Enter"))
        assert page.complaints == []
    with open_store(study, read_study(study)) as store:
        _, rankings = read_ballots(store)
    assert {(r.dimension, r.order) for r in rankings} == {
        ("text", ("s200", "s120", "s40")),
        ("quality", ("s40", "s120", "s200")),
    }


def test_a_server_that_starts_again_loses_nothing(chromium, tmp_path):
    study = small_study(tmp_path, 5)
    with serving(study) as server:
        page = opened(chromium, server.links()["g1-1"])
        vote(page, lambda: page.keyboard.press("ArrowLeft"))
        server.kill()

        def answer_while_it_is_away() -> None:
            page.keyboard.press("ArrowDown")
            page.wait_for_selector("#status.lasting")
            assert "not saved yet" in page.text_content("#status")
            server.start()

        vote(page, answer_while_it_is_away)
        assert page.text_content("#count") == "2 of 5"
        for _ in range(3):
            vote(page, lambda: page.keyboard.press("ArrowRight"))
        assert page.text_content(".message h1") == "Thank you!"
    assert len(ballots(study)) == 5


def test_hostile_prompts_are_shown_as_text(chromium, tmp_path):
    study = small_study(tmp_path, HOSTILE)
    with hosting(study) as server:
        page, seen = opened(chromium, server.links()["g1-1"]), []
        for _ in HOSTILE:
            seen.append(page.text_content("#prompt"))
            assert page.evaluate("document.querySelector('#prompt').childElementCount") == 0
            assert page.get_by_role("button", name="A is better").is_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            vote(page, lambda: page.keyboard.press("ArrowLeft"))
        assert sorted(seen) == sorted(HOSTILE)
        assert page.evaluate("window.hacked") is None
        assert page.complaints == []
        admin = chromium.new_context().new_page()
        admin.goto(server.links()["researcher"])
        admin.wait_for_selector("#people tr")
        assert admin.evaluate("window.hacked") is None
        admin.get_by_role("button", name="Pause").click()
        admin.wait_for_function("() => document.querySelector('#state').textContent === 'paused'")


def test_everything_can_be_reached_and_has_a_name(chromium, tmp_path):
    """Labels, focus and contrast: every control has a name and shows its focus; text has at least 4.5 to 1."""
    study = small_study(tmp_path, 2)
    contrast = """() => {
      const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
      const back = (it) => { for (; it; it = it.parentElement) { const c = getComputedStyle(it).backgroundColor; if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
      return [...document.querySelectorAll('button:not(:disabled) span, #prompt, #count, figcaption')].filter((it) => it.offsetParent && it.textContent).map((it) => {
        const [a, b] = [light(getComputedStyle(it).color), light(back(it))].sort((x, y) => y - x); return [it.textContent, (a + .05) / (b + .05)]; }); }"""
    with hosting(study) as server:
        for scheme in ("light", "dark"):
            page = opened(chromium, server.links()["g1-1"], color_scheme=scheme)
            for control in page.locator("button:visible, [tabindex='0']:visible, progress, img").all():
                name = control.evaluate("(it) => it.ariaLabel || it.alt || it.textContent.trim()")
                assert name, control.evaluate("(it) => it.outerHTML")
            for text, ratio in page.evaluate(contrast):
                assert ratio >= 4.5, (scheme, text, ratio)
            page.keyboard.press("Tab")
            reached = set()
            for _ in range(12):
                reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") in (
                    "solid",
                    "auto",
                    "none",
                )
                page.keyboard.press("Tab")
            assert {"rest", "help", "prompt", "zoom"} <= reached
            assert page.evaluate("document.documentElement.lang") == "en"


def test_the_source_of_edits_stands_beside_the_prompt(chromium, tmp_path):
    """Whole and in sight on a desktop and a phone, new with each item, enlarged by itself; beside it nothing changes."""
    sources = [tmp_path / f"source-{n}.png" for n in range(2)]
    for n, file in enumerate(sources):
        Image.new("RGB", (64 + n, 40), (200, 100 * n, 0)).save(file)
    folders = [folder_of_samples(tmp_path / f"s{level}", level, ["a", "b"], sources=sources) for level in (60, 180)]
    create(CreateRequest(folders, tmp_path / "study", Plan(1, 2, 2)))
    with hosting(tmp_path / "study") as server:
        for name, viewport in (("g1-1", (1200, 760)), ("g1-2", (390, 760))):
            page, widths = opened(chromium, server.links()[name]), {}
            page.set_viewport_size(dict(zip(("width", "height"), viewport, strict=True)))
            for _ in sources:
                picture = page.locator("#source img")
                widths[page.text_content("#prompt")] = picture.evaluate("(it) => it.naturalWidth")
                box = picture.bounding_box()
                assert min(box["width"], box["height"]) > 100
                assert min(box["x"], box["y"]) >= 0
                assert box["x"] + box["width"] <= viewport[0]
                assert box["y"] + box["height"] <= page.locator("#results").bounding_box()["y"]
                assert page.locator("#prompt").bounding_box()["x"] >= box["x"] + box["width"]
                page.locator("#source .frame").dblclick()
                assert page.locator(".frame.zoomed").count() == 1
                vote(page, lambda page=page: page.keyboard.press("ArrowLeft"))
            assert widths == {"a": 64, "b": 65}
            assert page.complaints == []
    assert len(ballots(tmp_path / "study")) == 4


def test_solo_mode_by_keyboard(chromium, tmp_path):
    """One person, keyboard only: 4 samples of each of 2 prompts take 8 looks, and the brighter one is chosen each time."""
    folders = [folder_of_samples(tmp_path / f"s{n}", 40 + 50 * n, ["a", "b"]) for n in range(4)]
    session = Session(folders, tmp_path / "pairs.jsonl")
    page = chromium.new_context().new_page()
    page.goto(session.voter.link)
    for _ in range(8):
        page.wait_for_selector("body[data-slot]")
        levels = page.evaluate(LEVELS)
        vote(page, lambda levels=levels: page.keyboard.press("ArrowLeft" if levels[0] > levels[1] else "ArrowRight"))
    assert page.text_content(".message h1") == "Thank you!"
    session.process.kill()
    session.process.wait()
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert all(int(line["chosen"][1]) > int(line["rejected"][1]) for line in lines)
