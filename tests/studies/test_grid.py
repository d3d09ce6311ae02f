import pytest

from sipo.errors import UsageError
from sipo.studies.grid import named_studies, parse_study, read_study

RAW = {
    "name": "small", "title": "Small", "question": "?",
    "base": {"model": {"path": "m"}, "data": {"path": "d"}, "loss": {"name": "diffusion_dpo"}, "train": {"num_steps": 8}},
    "axes": {"objective": {"DPO": {"loss": {"name": "diffusion_dpo"}}, "DPO-C&M": {"loss.name": "dpo_cm"}}, "beta": {"loss.beta": [0.1, 1]}},
    "seeds": [0, 3], "measure": {"moments": 4, "num_prompts": 5}, "curves": "objective", "panels": "beta",
    "quick": {"labels": {"beta": ["1"]}, "seeds": [7], "train.num_steps": 2, "measure.moments": 1},
}  # fmt: skip


def test_the_grid_is_the_product_of_its_axes_and_seeds(tmp_path):
    cells = parse_study(RAW, "s").cells(tmp_path)
    assert len(cells) == 8
    found = {(type(c.config.loss).__name__, c.config.loss.beta, c.config.train.seed) for c in cells}
    assert found == {(name, beta, seed) for name in ("DiffusionDPO", "DPOCM") for beta in (0.1, 1) for seed in (0, 3)}
    assert cells[-1].path == tmp_path / "dpo-c-m_1_seed3"


def test_null_leaves_a_key_of_another_axis_out(tmp_path):
    axes = {
        "beta": {"loss.beta": [0.1, 1]},
        "objective": {"SIPO": {"loss.name": "sipo"}, "SFT": {"loss.name": "sft", "loss.beta": None}},
    }
    cells = parse_study({**RAW, "axes": axes}, "s").cells(tmp_path)
    assert [getattr(c.config.loss, "beta", None) for c in cells if c.seed == 0] == [0.1, None, 1, None]


def test_a_study_that_shares_runs_names_and_sets_them_alike(tmp_path):
    whole, part = (read_study(name).cells(tmp_path) for name in ("stabilisers", "stability"))
    settings = {cell.path: cell.config for cell in whole}
    shared = [cell for cell in part if cell.path in settings]
    assert len(shared) == 12
    assert all(cell.config == settings[cell.path] for cell in shared)


def test_samples_are_drawn_at_the_moments_that_are_measured(tmp_path):
    config = parse_study(RAW, "s").cells(tmp_path)[0].config
    assert (config.train.sample_every, config.sample.num_prompts, config.sample.prompts) == (2, 5, "miniature")
    assert config.train.num_threads == 1


def test_a_study_over_rounds_is_of_online_rounds(tmp_path):
    base = {"model": {"path": "m"}, "loss": {"name": "sipo"}, "rounds": {"prompts": "p.txt", "num_prompts": 4}}
    raw = {**RAW, "base": base, "x": "round", "measure": {"moments": 7, "num_prompts": 5, "scorer": "own:Scorer"}}
    cells = parse_study(raw, "s").cells(tmp_path)
    rounds, training = cells[-1].config.rounds, cells[-1].training
    assert (rounds.num_rounds, rounds.num_held_out, rounds.scorer, rounds.held_out) == (7, 5, "own:Scorer", "miniature")
    assert (training.loss.beta, training.train.seed, training.train.num_threads) == (1, 3, 1)
    assert cells[-1].path == cells[-1].config.path == tmp_path / "dpo-c-m_1_seed3"
    assert cells[-1].length == "7 rounds"


@pytest.mark.parametrize(("x", "rounds"), [("round", {}), ("step", {"rounds": {"prompts": "p"}})])
def test_rounds_are_in_the_base_and_on_the_horizontal_or_in_neither(x, rounds):
    with pytest.raises(UsageError, match="x: round"):
        parse_study({**RAW, "x": x, "base": {**RAW["base"], **rounds}}, "s")


def test_the_quick_form(tmp_path):
    cells = parse_study(RAW, "s").shortened().cells(tmp_path)
    assert [(c.labels["beta"], c.seed, c.config.train.num_steps) for c in cells] == [("1", 7, 2)] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": {}}, "unknown key axis"),
        ({"seeds": None, "name": None}, None),
        ({"panels": "gamma"}, "'gamma' is no axis"),
        ({"panels": None}, "the axis beta is shown by none"),
        ({"axes": {"beta": [1, 2]}, "curves": None, "panels": "beta"}, "should map labels to settings"),
        ({"measure": {"scorers": "x"}}, "measure"),
    ],
)
def test_mistakes_name_the_key(change, message):
    raw = {key: value for key, value in {**RAW, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=message or "missing name, seeds"):
        parse_study(raw, "s")


def test_steps_must_divide_into_the_moments(tmp_path):
    with pytest.raises(UsageError, match="8 steps do not divide into 3 moments"):
        parse_study({**RAW, "measure": {"moments": 3}}, "s").cells(tmp_path)


def test_a_wrong_config_names_its_place_in_the_grid(tmp_path):
    raw = {**RAW, "axes": {"beta": {"loss.beta": [-1]}}, "curves": "beta", "panels": None}
    with pytest.raises(UsageError, match=r"study small \(beta -1\)"):
        parse_study(raw, "s").cells(tmp_path)


def test_labels_that_look_alike_are_refused(tmp_path):
    raw = {**RAW, "axes": {"o": {"A b": {"loss.beta": 1}, "a-B": {"loss.beta": 2}}}, "curves": "o", "panels": None}
    with pytest.raises(UsageError, match="same name"):
        parse_study(raw, "s").cells(tmp_path)


@pytest.mark.parametrize("name", named_studies())
def test_every_shipped_study_is_whole(name, tmp_path):
    study = read_study(name)
    assert study.name == name
    assert len(study.seeds) >= 3
    assert study.shortened().cells(tmp_path)
    assert study.cells(tmp_path)


def test_a_study_like_another_has_its_keys_under_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{like: stabilisers, name: mine, title: T, question: '?', base: {train: {num_steps: 16}}, "
        "measure: {num_prompts: 3}, axes: {beta: {loss.beta: [1]}}, x: beta, quick: {seeds: [7]}}"
    )
    parent, mine = read_study("stabilisers"), read_study(str(path))
    config, of_parent = mine.cells(tmp_path)[0].config, parent.cells(tmp_path)[0].config
    assert (config.train.num_steps, config.sample.num_prompts) == (16, 3)
    assert config.train.learning_rate == of_parent.train.learning_rate
    assert config.policy == of_parent.policy
    assert (mine.measure.scorer, mine.seeds) == (parent.measure.scorer, parent.seeds)
    short = mine.shortened().cells(tmp_path)
    assert [(cell.seed, cell.config.train.num_steps) for cell in short] == [(7, parent.quick["train.num_steps"])]


def test_a_study_may_be_like_one_that_is_like_another(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{like: timesteps, name: mine, title: T, question: '?', axes: {beta: {loss.beta: [3]}}, curves: beta}"
    )
    mine, whole = read_study(str(path)), read_study("stabilisers")
    assert (mine.seeds, mine.measure.moments, mine.measure.num_prompts) == (whole.seeds, 1, whole.measure.num_prompts)
    assert (mine.base["train"]["num_steps"], mine.base["data"]) == (200, whole.base["data"])


def test_a_study_like_none_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("{like: other, name: mine}")
    with pytest.raises(UsageError, match="'other' is no study"):
        read_study(str(path))


def test_no_such_study():
    with pytest.raises(UsageError, match="neither a YAML file nor a study"):
        read_study("nothing")
