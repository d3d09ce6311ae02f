"""A study's CSV gives back what was written into it, to runs of the same settings alone."""

import csv
import dataclasses

import pytest
from markdown_it import MarkdownIt

from sipo.errors import UserError
from sipo.mini import STILL
from sipo.studies.grid import parse_study
from sipo.studies.page import write_page
from sipo.studies.published import Result, as_csv, fingerprint, gather
from sipo.studies.results import Row

RAW = {
    "name": "s", "title": "S", "question": "?", "curves": "beta", "seeds": [0, 1],
    "base": {"model": {"path": "miniature"}, "data": {"path": "miniature"}, "loss": {"name": "sipo"}, "train": {"num_steps": 4}},
    "axes": {"beta": {"loss.beta": [0.1, 1]}}, "measure": {"moments": 2, "num_prompts": 3},
}  # fmt: skip


def study_of(**changes):
    return parse_study({**RAW, **changes}, "s")


def results_of(study, runs):
    cells = study.cells(runs)
    rows = [
        [Row(dict(c.labels), c.seed, at, {"score": c.seed + at / 3} | ({"loss": 0.5} if at else {})) for at in (0, 2)]
        for c in cells
    ]
    return [Result(cell, mine, fingerprint(study, cell), 7.0) for cell, mine in zip(cells, rows, strict=True)]


def test_a_change_of_the_rounds_is_another_fingerprint(tmp_path):
    def of(**rounds):
        base = {"model": {"path": "miniature"}, "loss": {"name": "sipo"}, "rounds": {"prompts": "miniature", **rounds}}
        study = study_of(base=base, x="round")
        return fingerprint(study, study.cells(tmp_path)[0])

    assert of() == of(reference="fixed") != of(reference="previous")
    for name, prompts in (("one", "a\nb\n"), ("moved", "a\nb\n"), ("other", "a\nc\n")):
        (tmp_path / f"{name}.txt").write_text(prompts)
    one, moved, other = (of(prompts=str(tmp_path / f"{name}.txt")) for name in ("one", "moved", "other"))
    assert one == moved != other


def test_a_table_counts_as_done_wherever_the_runs_lay(tmp_path):
    study, table = study_of(), tmp_path / "s.csv"
    written = results_of(study, tmp_path / "here")
    table.write_text(as_csv(study, written[:3]))
    cells = study.cells(tmp_path / "elsewhere")
    read = gather(study, cells, table)
    assert [result.cell for result in read] == cells[:3]
    assert [(row.seed, row.at, row.labels) for row in read[2].rows] == [(0, 0, {"beta": "1"}), (0, 2, {"beta": "1"})]
    assert read[1].rows[1].values == pytest.approx({"score": 1 + 2 / 3, "loss": 0.5}, abs=1e-5)
    assert "loss" not in read[1].rows[0].values
    assert as_csv(study, read) == as_csv(study, written[:3])


@pytest.mark.parametrize(
    "changes",
    [
        {"base": {**RAW["base"], "train": {"num_steps": 4, "learning_rate": 0.5}}},
        {"measure": {"moments": 2, "num_prompts": 4}},
        {"measure": {"moments": 2, "num_prompts": 3, "values": ["score", "correct"]}},
        {"base": {**RAW["base"], "sample": {"seed": 9}}},
    ],
    ids=["learning rate", "prompts", "values", "seed of the samples"],
)
def test_other_settings_are_not_done(tmp_path, changes):
    study, table = study_of(), tmp_path / "s.csv"
    table.write_text(as_csv(study, results_of(study, tmp_path)))
    other = study_of(**changes)
    assert gather(other, other.cells(tmp_path), table) == []


def test_other_weights_under_the_same_name_are_not_done(tmp_path, monkeypatch):
    study, found = study_of(), []
    for content in (b"a", b"b"):
        folder = tmp_path / content.decode()
        folder.mkdir()
        (folder / "unet.safetensors").write_bytes(content)
        miniature = dataclasses.replace(STILL, weights=folder)
        monkeypatch.setattr("sipo.studies.published.registry.miniature", lambda name, miniature=miniature: miniature)
        found.append(fingerprint(study, study.cells(tmp_path)[0]))
    assert found[0] != found[1]


def test_where_the_cache_lies_does_not_matter(tmp_path):
    study = study_of()
    moved = study_of(base={**RAW["base"], "data": {"path": "miniature", "cache": "cache/there", "workers": 1}})
    assert [fingerprint(study, c) for c in study.cells(tmp_path)] == [
        fingerprint(moved, c) for c in moved.cells(tmp_path / "b")
    ]


def test_a_setting_written_out_at_its_default_does_not_matter(tmp_path):
    study = study_of()
    written = study_of(
        base={**RAW["base"], "train": {"num_steps": 4, "weight_decay": 0.0, "reference": {"precompute": None}}}
    )
    assert [fingerprint(study, c) for c in study.cells(tmp_path)] == [
        fingerprint(written, c) for c in written.cells(tmp_path)
    ]


def test_a_run_in_the_table_of_another_study_counts_by_whatever_name(tmp_path):
    whole = study_of()
    (tmp_path / "s.csv").write_text(as_csv(whole, results_of(whole, tmp_path)))
    (tmp_path / "notes.csv").write_bytes(b"of somebody,\xff else's")
    part = study_of(
        name="part", axes={"strength": {"weak": {"loss.beta": 1}, "weaker": {"loss.beta": 2}}}, curves="strength"
    )
    read = gather(part, part.cells(tmp_path), tmp_path / "part.csv")
    assert [(r.cell.labels, r.cell.seed) for r in read] == [({"strength": "weak"}, 0), ({"strength": "weak"}, 1)]
    assert [row.labels for row in read[0].rows] == [{"strength": "weak"}] * 2
    (tmp_path / "part.csv").write_text(as_csv(part, read[:1]))
    (tmp_path / "s.csv").unlink()
    assert len(gather(part, part.cells(tmp_path), tmp_path / "part.csv")) == 1


def test_cells_of_equal_settings_are_one_run_however_often_the_table_is_written(tmp_path):
    """SFT has no beta, so that a grid over beta holds it several times: its seeds must not count as more."""
    twice, table = study_of(axes={"beta": {"a": {"loss.beta": 1}, "b": {"loss.beta": 1}}}), tmp_path / "s.csv"
    first, *_ = results_of(twice, tmp_path)
    table.write_text(as_csv(twice, [first]))
    for _ in range(3):
        read = gather(twice, twice.cells(tmp_path), table)
        table.write_text(as_csv(twice, read))
    assert [(r.cell.labels["beta"], r.cell.seed, len(r.rows)) for r in read] == [("a", 0, 2), ("b", 0, 2)]
    assert [row.values for row in read[1].rows] == [pytest.approx(row.values, abs=1e-5) for row in first.rows]


def test_moments_of_another_kind_do_not_count(tmp_path):
    study, over_time = study_of(), study_of(name="t", x="timestep")
    (tmp_path / "s.csv").write_text(as_csv(study, results_of(study, tmp_path)))
    assert gather(over_time, over_time.cells(tmp_path), tmp_path / "t.csv") == []


def test_a_table_edited_by_hand_is_named(tmp_path):
    study, table = study_of(), tmp_path / "s.csv"
    table.write_text(as_csv(study, results_of(study, tmp_path)).replace("0.5", "half"))
    with pytest.raises(UserError, match=r"s\.csv: .*half"):
        gather(study, study.cells(tmp_path), table)


def test_a_study_over_timesteps_has_them_in_its_table(tmp_path):
    study = study_of(x="timestep", measure={"moments": 2, "num_prompts": 3, "values": ["w_chosen"]})
    cell = study.cells(tmp_path)[0]
    written = [Result(cell, [Row(dict(cell.labels), 0, 500, {"w_chosen": 0.5})], fingerprint(study, cell), 7.4)]
    assert as_csv(study, written).splitlines() == [
        "beta,seed,settings,seconds,timestep,w_chosen",
        f"0.1,0,{written[0].settings},7,500,0.5",
    ]


def test_names_are_texts_in_the_table_and_on_the_page(tmp_path):
    """A spreadsheet runs none of them, the page has no HTML or link of theirs, and the table gives them back."""
    name = "=1+1 <script>alert(1)</script> [a](javascript:alert(1)) | \u202e"
    study = study_of(axes={name: RAW["axes"]["beta"]}, curves=name, title=name)
    written = results_of(study, tmp_path / "runs")
    page = write_page(study, written, len(written), tmp_path, "sipo study\n<b>").read_text()
    table = tmp_path / "s.csv"
    assert not [cell for line in csv.reader(table.open(newline="")) for cell in line if cell[:1] in ("=", "@", "+")]
    assert [result.cell for result in gather(study, study.cells(tmp_path / "runs"), table)] == study.cells(
        tmp_path / "runs"
    )
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
    every = [token for part in tokens for token in (part, *(part.children or []))]
    assert not [token.content for token in every if token.type in ("html_block", "html_inline")]
    assert [token.attrs["href"] for token in every if token.type == "link_open"] == ["s.csv"]
    assert "\u202e" not in page


def test_a_page_of_the_first_run_of_a_study_with_panels(tmp_path):
    study = study_of(panels="beta", curves=None)
    page = write_page(study, results_of(study, tmp_path)[:1], 4, tmp_path, "sipo study s")
    assert "**1 of 4 runs**" in page.read_text()
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
