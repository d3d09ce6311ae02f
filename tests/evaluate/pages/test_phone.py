"""Real Chromium, as wide as a phone: nothing is wider than the screen, everything can be read without zooming."""

import pytest
import yaml
from support.browser import chromium
from support.synthetic_run import CONFIG, ColourScorer, make_run, scored_side, write_evaluation

from sipo.evaluate.compare.contest import contest
from sipo.evaluate.compare.files import write_contest
from sipo.evaluate.report.report import report
from sipo.evaluate.scores.score import score
from sipo.run import RunDir

pytestmark = pytest.mark.services

LONG = "a-scorer-whose-name-is-as-long-as-that-of-its-weights-and-has-no-space"
WIDE = """() => [...document.querySelectorAll('main *, header *, footer *')].filter((it) => !it.closest('.scroll, svg')
  && it.getBoundingClientRect().right > innerWidth + 0.5).map((it) => it.outerHTML.slice(0, 80))"""
SMALL = """(least) => [...document.querySelectorAll('body *')].filter((it) => it.checkVisibility()
  && [...it.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((it) => [
    parseFloat(getComputedStyle(it).fontSize) * (it.closest('svg') ? Math.hypot(it.getScreenCTM().a, it.getScreenCTM().b) : 1), it.textContent.trim()
  ]).filter(([size]) => size < least)"""
COLUMNS = """() => [...document.querySelectorAll('.headline, .cards, .plots, .groups')].map((it) => {
  const style = getComputedStyle(it); return style.display === 'grid' ? style.gridTemplateColumns.split(' ').length
    : style.columnCount === 'auto' ? 1 : +style.columnCount; })"""
TABLES = """() => [...document.querySelectorAll('table')].map((it) => {
  const box = it.closest('.scroll'), before = box.scrollLeft; box.scrollLeft = 9999; const moved = box.scrollLeft - before;
  return Math.abs(moved - Math.max(0, it.offsetWidth - box.clientWidth)) <= 1 && box.clientWidth < innerWidth; })"""
PICTURES = """() => [...document.querySelectorAll('img, svg')].filter((it) => it.checkVisibility()).map((it) => {
  const { width, height } = it.getBoundingClientRect(), box = it.viewBox?.baseVal;
  return width > 60 && Math.abs(width / height - (box ? box.width / box.height : it.naturalWidth / it.naturalHeight)) < 0.05; })"""
CUT = """() => [...document.querySelectorAll('svg text')].filter((it) => it.checkVisibility()).filter((it) => {
  const box = it.getBoundingClientRect(), page = it.closest('svg').getBoundingClientRect();
  return box.left < page.left - 2 || box.right > page.right + 2; }).map((it) => it.textContent)"""


class LongScorer(ColourScorer):
    name = LONG


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report and the comparison page of a run: long names without spaces, two scorers, two rivals."""
    path = make_run(tmp_path_factory.mktemp("runs") / ("run-" + 60 * "x"), num_steps=30, num_prompts=6)
    config = CONFIG | {"data": {"path": "/a/folder/of/" + 30 * "pairs-" + "/shards.parquet"}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    folder = write_evaluation(path, 6)
    for name in ("policy", "base"):
        score(folder / name, LongScorer())
    (folder / LONG).symlink_to(folder / "base")
    sides = [scored_side(folder / name, "colour", LONG) for name in ("policy", "base", LONG)]
    compared = write_contest(contest(sides, ["colour", LONG]), folder)
    for step in (0, 30):  # a curve under the scorer's name
        score(path / "samples" / f"{step:06d}", LongScorer())
    return {"report": report(RunDir(path)), "comparison": compared}


@pytest.fixture(scope="module")
def phone():
    with chromium() as browser:
        yield browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True).new_page()


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize("width", [320, 390, 600])
def test_a_page_can_be_read_on_a_phone(phone, pages, name, width):
    phone.set_viewport_size({"width": width, "height": 844})
    phone.goto(pages[name].as_uri())
    phone.evaluate("document.querySelectorAll('details').forEach((it) => { it.open = true; })")
    screen, wide = phone.evaluate("[innerWidth, document.documentElement.scrollWidth]")
    assert screen == width  # a page without a viewport is laid out for 980 pixels
    assert wide <= screen
    assert phone.evaluate(WIDE) == []
    assert phone.evaluate(SMALL, 15.9 if width >= 390 else 12.8) == []  # the text of plots shrinks with them
    assert phone.evaluate(CUT) == []
    columns = phone.evaluate(COLUMNS)
    assert columns
    assert set(columns) == {1}
    tables, pictures = phone.evaluate(TABLES), phone.evaluate(PICTURES)
    assert len(tables) >= 3
    assert len(pictures) >= 12
    assert all(tables)
    assert all(pictures)
