"""A run resumes on what it was trained on: other content under the same path is refused, equal content elsewhere is not."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file
from support.configs import changed
from support.runs import assert_same_results, train_raw

from sipo.errors import UsageError
from sipo.run import RunDir


@pytest.fixture
def begun(raw_config, tiny_sd, tiny_pairs, tmp_path):
    """A run of two steps on copies of its own, so that they can be changed and moved."""
    shutil.copytree(tiny_sd, tmp_path / "sd")
    shutil.copy(tiny_pairs, tmp_path / "pairs.parquet")
    raw = changed(raw_config, f"model.path={tmp_path / 'sd'}", f"data.path={tmp_path / 'pairs.parquet'}", "train.num_steps=2",
                  "train.checkpoint_every=1", "train.sample_every=0", "train.validate_every=0")  # fmt: skip
    train_raw(raw)
    return raw


def scale(file) -> None:
    save_file({name: 1.1 * value for name, value in load_file(file).items()}, file, {"format": "pt"})


def test_other_content_under_the_same_path_is_refused_by_name(begun, tmp_path):
    more = changed(begun, "train.num_steps=3")
    weights = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    scale(weights)
    with pytest.raises(
        UsageError, match=r"trained on something else:\n  model\.path: other content.*step 2\nPut it back"
    ):
        train_raw(more)
    weights.write_bytes(kept)
    scale(tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UsageError, match=r"\n  the vae of model\.path: other content"):
        train_raw(more)


@pytest.mark.parametrize(("part", "file"), [("vae", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_encoders_are_compared_where_the_cache_they_made_is_gone(begun, tmp_path, part, file):
    cached = changed(begun, f"run={tmp_path / 'cached'}", f"data.cache={tmp_path / 'cache'}")
    train_raw(cached)
    shutil.rmtree(tmp_path / "cache")
    train_raw(changed(cached, "train.num_steps=3"))  # the same encoders may encode again
    shutil.rmtree(tmp_path / "cache")
    scale(tmp_path / "sd" / part / f"{file}.safetensors")
    with pytest.raises(UsageError, match=rf"\n  the {part} of model\.path: other content.*step 3"):
        train_raw(changed(cached, "train.num_steps=4"))
    assert not (tmp_path / "cache").exists()


def test_other_pairs_under_the_same_path_are_refused(begun, tmp_path):
    table = pq.read_table(tmp_path / "pairs.parquet")
    labels = pa.array([1 - label for label in table["label_0"].to_pylist()])
    pq.write_table(
        table.set_column(table.schema.get_field_index("label_0"), "label_0", labels), tmp_path / "pairs.parquet"
    )
    with pytest.raises(UsageError, match=r"\n  data\.path: other content"):
        train_raw(changed(begun, "train.num_steps=3"))


def test_places_and_what_shapes_no_weight_may_change(begun, tmp_path):
    unbroken = changed(begun, f"run={tmp_path / 'unbroken'}", "train.num_steps=4")
    train_raw(unbroken)
    for name in ("sd", "pairs.parquet", "run"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    moved = changed(
        begun, f"model.path={tmp_path / 'moved' / 'sd'}", f"data.path={tmp_path / 'moved' / 'pairs.parquet'}",
        f"run={tmp_path / 'moved' / 'run'}", "train.num_steps=4", "train.checkpoint_every=2", "train.keep_checkpoints=7",
        "train.sample_every=3", "sample.num_prompts=1", "sample.seed=9", "log.tensorboard=false", "data.workers=1",
    )  # fmt: skip
    train_raw(moved)
    assert_same_results(RunDir(moved["run"]), RunDir(unbroken["run"]), steps=[4])


def test_what_shapes_the_weights_may_not(begun):
    for override in (
        "train.learning_rate=0.123",
        "loss.beta=0.77",
        "data.flip=true",
        "train.seed=5",
        "data.cache=elsewhere",
    ):
        with pytest.raises(UsageError, match=override.split("=")[0]):
            train_raw(changed(begun, "train.num_steps=3", override))


def test_a_run_without_fingerprints_resumes_at_its_own_place(begun, tmp_path):
    """As version 0.1.0 left it: places are compared by name."""
    run = RunDir(begun["run"])
    run.inputs.unlink()
    shutil.copy(tmp_path / "pairs.parquet", tmp_path / "other.parquet")
    with pytest.raises(UsageError, match=r"data\.path: .*pairs\.parquet' in the run"):
        train_raw(changed(begun, "train.num_steps=3", f"data.path={tmp_path / 'other.parquet'}"))
    train_raw(changed(begun, "train.num_steps=3"))
    assert run.inputs.is_file()


def test_another_lora_is_named_as_that(begun, tmp_path):
    lora = tmp_path / "lora"
    shutil.copytree(RunDir(begun["run"]).weights, lora)
    raw = changed(begun, f"run={tmp_path / 'second'}", f"model.lora={lora}")
    train_raw(raw)
    scale(next(lora.glob("*.safetensors")))
    with pytest.raises(UsageError) as error:
        train_raw(changed(raw, "train.num_steps=3"))
    assert "model.lora: other content" in str(error.value)
    assert "model.path" not in str(error.value)
