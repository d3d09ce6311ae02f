"""The config of online rounds: every mistake at once, before the first sample."""

from pathlib import Path

import pytest
from support.configs import changed
from support.online import play

from sipo.config import parse_config
from sipo.errors import UsageError
from sipo.rounds.config import items_of_round, load_online, parse_online, require_ready
from sipo.rounds.samples import items_of


def test_every_mistake_is_reported_at_once(raw_online):
    raw = changed(raw_online, "rounds.num_round=3", "loss.bta=1", "data.path=x", "policy.start=y")
    with pytest.raises(UsageError) as found:
        parse_online(raw)
    for mistake in ("rounds.num_round: unknown key; did you mean num_rounds", "loss.bta: unknown key; did you mean beta",
                    "data.path: every round has its own", "policy.start: every round has its own"):  # fmt: skip
        assert mistake in str(found.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds.samples_per_prompt=1", "samples_per_prompt must be at least 2"),
        ("rounds.epochs=0", "rounds.epochs: found 0; expected"),
        ("rounds.prompts=null", "give either prompts"),
        ("rounds.chosen=pairs.parquet", "give either prompts"),
        ("rounds.num_rounds=0", "rounds.num_rounds: found 0; expected"),
        ("rounds.reference=last", "rounds.reference"),
        ("rounds=null", "rounds: should be a mapping"),
    ],
)
def test_values_out_of_range(raw_online, override, message):
    with pytest.raises(UsageError, match=message):
        parse_online(changed(raw_online, override))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds.scorer=pikscore", "did you mean pickscore"),
        ("rounds.num_prompts=7", "7 a round; there are 6"),
        ("rounds.held_out=prompts", r"1 of these prompts are trained on too, such as 'prompt 5'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_read(raw_online, tmp_path, override, message):
    (tmp_path / "prompts").mkdir()
    file = tmp_path / "prompts" / "p.txt"
    file.write_text("prompt 5\nnew\n")
    override = override.replace("=prompts", f"={file}")
    with pytest.raises(UsageError, match=message):
        play(changed(raw_online, override, "model.path=nowhere"))


def test_a_config_survives_its_file(raw_online):
    config = parse_online(raw_online)
    assert parse_online(config.to_dict()) == config


def test_epochs_become_steps(raw_online):
    config = parse_online(changed(raw_online, "rounds.epochs=20", "train.gradient_accumulation=4"))
    assert config.num_steps(3000, world=8) == 938  # 20 x 3,000 pairs, 64 a step, the last one filled up
    assert parse_online(changed(raw_online, "rounds.epochs=null")).num_steps(10, 1) is None


def test_seeds_of_samples_are_all_different_and_a_prompts_are_neighbours(raw_online):
    rounds = parse_online(raw_online).rounds
    items = [item for number in (1, 2, 3) for item in items_of_round(rounds, number)]
    assert len({item.seed for item in items}) == len(items) == 24
    for first, second in zip(items[::2], items[1::2], strict=True):
        assert (first.prompt, first.seed + 1) == (second.prompt, second.seed)
        assert first.seed % 2 == 0


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 5, 12, 13])
def test_parts_are_whole_batches_of_the_one_process(parts, count):
    items = list(range(count))
    batches = lambda chosen: [tuple(chosen[i : i + 3]) for i in range(0, len(chosen), 3)]  # noqa: E731
    shared = [batch for part in range(parts) for batch in batches(items_of(items, part, parts, 3))]
    assert shared == batches(items)


def test_the_training_of_a_round_is_the_configs(raw_online, tmp_path):
    config = parse_online(changed(raw_online, "data.cache=c", "train.seed=3"))
    made = config.round_config(2, tmp_path / "pairs.jsonl", tmp_path, tmp_path / "weights", 7)
    assert (made.run, made.data.path, made.data.cache) == tuple(
        str(tmp_path / n) for n in ("run", "pairs.jsonl", "cache")
    )
    assert (made.policy.start, made.policy.reference) == (str(tmp_path / "weights"), "base")
    assert (made.train.num_steps, made.train.seed) == (7, 3002)
    assert made.loss == config.training.loss
    assert parse_config(made.to_dict()) == made


CONFIGS = Path(__file__).parents[2] / "configs" / "online"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_follow_figure_a1(path):
    """Appendix F.2: 10 rounds, 3,000 prompts of two samples each, 20 epochs; fewer prompts on the miniature."""
    config = load_online(path)
    assert str(config.path) == f"runs/online/{path.stem}"
    steps = 20 if path.stem == "miniature-d3po" else 1  # of a trajectory, each of which is trained on
    assert (config.rounds.num_rounds, config.rounds.epochs) == (10, 20 / steps)
    if path.stem.startswith("miniature"):
        require_ready(config)
    else:
        assert (config.rounds.num_prompts, config.rounds.samples_per_prompt) == (3000, 2)


@pytest.mark.parametrize("model", ["miniature", "cogvideox-2b"])
def test_the_objectives_differ_in_nothing_but_run_loss_and_weight(model):
    one, two = (load_online(CONFIGS / f"{model}-{name}.yaml").to_dict() for name in ("dpo", "sipo"))
    assert {key for key in one if one[key] != two[key]} == {"run", "loss", "weight"}
