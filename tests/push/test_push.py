"""`sipo push` to the stand-in: the bytes that arrive, what never goes, and every way in which it can be refused."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from markdown_it import MarkdownIt
from safetensors.torch import load_file
from support.command_line import run as sipo
from support.configs import changed
from support.hub import LFS_FROM
from support.hub_server import MINE, READER, connect, go_away, stand_in
from support.runs import train_raw
from support.synthetic_run import write_evaluation

from sipo.run import RunDir
from sipo.train.checkpoint import load_checkpoint

SECRET = "sk-thisIsATokenOfSomeJudge1234567890"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_sd, tiny_pairs):
    """A run of 4 steps with samples, a comparison, a cache and a warning that holds what must not go."""
    folder = tmp_path_factory.mktemp("my runs")
    raw = {
        "run": str(folder / "aligned"), "model": {"path": str(tiny_sd)},
        "data": {"path": str(tiny_pairs), "workers": 0, "cache": str(folder / "cache of mine")},
        "loss": {"name": "sipo"}, "policy": {"rank": 96},
        "train": {"num_steps": 4, "batch_size": 2, "checkpoint_every": 2, "sample_every": 2, "validate_every": 0},
        "sample": {"num_prompts": 2, "num_inference_steps": 2},
    }  # fmt: skip
    run = train_raw(raw)
    write_evaluation(run.path, 4)
    with run.metrics.open("a") as file:
        file.write(
            json.dumps({"kind": "warning", "step": 4, "message": f"{folder}/x.png: {SECRET} at /mnt/data/pairs/1.png"})
            + "\n"
        )
    return run


@pytest.fixture
def mine(monkeypatch, hub, tmp_path):
    connect(monkeypatch, hub, tmp_path / "hub-cache", MINE)
    return hub


def push(monkeypatch, capsys, run, *arguments) -> tuple[int, str, str]:
    return sipo(monkeypatch, capsys, "push", run.path if isinstance(run, RunDir) else run, *arguments)


def reported(run: RunDir) -> RunDir:
    """With a page that is newer than everything else, which saves drawing one."""
    run.report.write_text("<p>the report</p>")
    return run


def test_what_goes_and_what_never_does(mine, made, monkeypatch, capsys, tiny_sd, tiny_pairs):
    monkeypatch.setenv("SOME_API_KEY", "a-value-of-the-environment")
    status, printed, complaints = push(monkeypatch, capsys, made, "me/aligned")
    assert (status, complaints) == (0, "")
    pushed = mine.repositories["models", "me/aligned"]
    assert not pushed.private
    assert mine.messages == ["Add a run of sipo"]
    files = {name: content for name, content in pushed.files.items() if name != ".gitattributes"}
    plots = {f"plots/{file.name}" for file in (made.path / "plots").iterdir()}
    assert set(files) == {
        "README.md", "config.yaml", "metrics.jsonl", "report.html", "sipo.json", "pytorch_lora_weights.safetensors",
        "samples/first/00.png", "samples/first/01.png", "samples/last/00.png", "samples/last/01.png", *plots,
    }  # fmt: skip
    weights = (made.weights / "pytorch_lora_weights.safetensors").read_bytes()
    assert len(weights) > LFS_FROM  # by LFS
    assert files["pytorch_lora_weights.safetensors"] == weights
    for place, step in (("first", 0), ("last", 4)):
        assert files[f"samples/{place}/01.png"] == (made.samples_at(step) / "00001.png").read_bytes()
    for name in plots:
        assert files[name] == (made.path / name).read_bytes()
    here = [made.path.parent, tiny_sd, tiny_sd.parent, tiny_pairs.parent, Path.home(), Path.cwd(), "/mnt/data"]
    for name, content in files.items():
        found = [str(each) for each in (*here, SECRET, MINE) if re.search(rb"(?<![\w.])" + re.escape(str(each).encode()) + rb"\b", content)]  # fmt: skip
        assert not found, name
    assert "1.png" in files["metrics.jsonl"].decode().splitlines()[-1]
    assert len(files["metrics.jsonl"].splitlines()) == len(made.read_metrics())
    assert "metrics.jsonl: 2 paths made a name, 1 token removed" in " ".join(printed.split())
    assert re.search(r"\d+ files, \d+\.\d MB in http://127.0.0.1:\d+/me/aligned", printed)
    assert printed.count("pytorch_lora_weights.safetensors") == 1


def test_the_settings_are_those_of_the_run_without_its_places(mine, made, monkeypatch, capsys, tiny_sd):
    push(monkeypatch, capsys, made, "me/aligned")
    files = mine.repositories["models", "me/aligned"].files
    pushed, own = yaml.safe_load(files["config.yaml"]), made.read_config()
    assert (pushed["run"], pushed["model"]["path"], pushed["data"]["path"], pushed["data"]["cache"]) == (
        "aligned", tiny_sd.name, "pairs.parquet", "cache of mine")  # fmt: skip
    for section, key in (("run", None), ("model", "path"), ("data", "path"), ("data", "cache")):
        if key is None:
            pushed[section] = own[section]
        else:
            pushed[section][key] = own[section][key]
    assert pushed == own
    assert json.loads(files["sipo.json"]) == {"base": tiny_sd.name, "kind": "lora", "step": 4}


def test_the_card(mine, made, monkeypatch, capsys):
    push(monkeypatch, capsys, made, "aligned", "--revision", "four")  # of one's own
    files = mine.repositories["models", "me/aligned"].commits[
        mine.repositories["models", "me/aligned"].branches["four"]
    ]
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["pipeline_tag"] == "text-to-image"
    assert "base_model" not in front  # a folder here is none of the hub's models
    assert sorted(front["tags"]) == ["lora", "preference-optimization", "sipo"]
    assert 'pipeline.load_lora_weights("me/aligned", revision="four")' in card
    assert "path/to/this/folder" not in card
    page = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    heads = [page[place + 1].content for place, token in enumerate(page) if token.type == "heading_open"]
    assert heads[1:] == ["Result", "Mean scores", "policy against", "By category, against base, colour",
                         "Samples during training", "Files", "Settings"]  # fmt: skip
    pictures = [child.attrs["src"] for token in page for child in token.children or () if child.type == "image"]
    assert pictures == ["samples/first/00.png", "samples/last/00.png", "samples/first/01.png", "samples/last/01.png"]
    assert set(pictures) <= set(files)
    settings = [token.content for token in page if token.type == "fence"][-1]
    assert yaml.safe_load(settings) == yaml.safe_load(files["config.yaml"])


def test_a_dry_run_sends_nothing_and_asks_nobody(hub, made, monkeypatch, capsys):
    status, printed, _ = push(monkeypatch, capsys, made, "someone/aligned", "--dry-run")  # without a token
    assert status == 0
    assert hub.requests == []
    assert "would go to someone/aligned; nothing was sent" in printed
    connect(monkeypatch, hub, Path(constants.HF_HUB_CACHE), MINE)
    push(monkeypatch, capsys, made, "me/aligned")
    listed = {line.split()[0] for line in printed.splitlines() if re.search(r"[a-z.] +[\d,]+ *$", line)}
    assert listed == set(hub.repositories["models", "me/aligned"].files) - {".gitattributes"}


def test_what_is_there_is_not_sent_twice(mine, made, monkeypatch, capsys):
    push(monkeypatch, capsys, made, "me/aligned")
    first = dict(mine.repositories["models", "me/aligned"].files)
    mine.requests.clear()
    status, _, _ = push(monkeypatch, capsys, made, "me/aligned")
    assert status == 0
    assert not [request for request in mine.requests if request.startswith("PUT")]
    assert mine.repositories["models", "me/aligned"].files == first
    assert len(mine.messages) == 1  # nothing changed, so there is no second commit


def test_an_upload_that_broke_off_goes_on(mine, made, monkeypatch, capsys):
    from huggingface_hub import lfs

    def fail(*_, **__):
        raise ConnectionResetError("the line is dead")

    with monkeypatch.context() as broken:
        broken.setattr(lfs, "http_backoff", fail)
        status, _, complaints = push(broken, capsys, made, "me/aligned")
    assert status == 1
    assert "me/aligned: the hub is out of reach (the line is dead)" in complaints
    assert set(mine.repositories["models", "me/aligned"].files) == {".gitattributes"}  # all or nothing
    assert push(monkeypatch, capsys, made, "me/aligned")[0] == 0
    assert "README.md" in mine.repositories["models", "me/aligned"].files


def test_weights_of_another_step(mine, made, monkeypatch, capsys):
    push(monkeypatch, capsys, made, "me/aligned", "--step", "2")
    files = mine.repositories["models", "me/aligned"].files
    assert json.loads(files["sipo.json"])["step"] == 2
    place = Path(constants.HF_HUB_CACHE) / "two.safetensors"
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(files["pytorch_lora_weights.safetensors"])
    kept = load_checkpoint(made.checkpoints, 2).weights
    pushed = load_file(place)
    assert sorted(float(v.abs().sum()) for v in pushed.values() if v.ndim > 1) == pytest.approx(
        sorted(float(v.abs().sum()) for v in kept.values() if v.ndim > 1)
    )


def test_private_stays_private(mine, made, monkeypatch, capsys):
    assert push(monkeypatch, capsys, made, "me/hidden", "--private")[0] == 0
    assert mine.repositories["models", "me/hidden"].private
    assert push(monkeypatch, capsys, made, "my-group/open")[0] == 0
    assert not mine.repositories["models", "my-group/open"].private
    before = dict(mine.repositories["models", "my-group/open"].files)
    status, _, complaints = push(monkeypatch, capsys, made, "my-group/open", "--private")
    assert status == 1
    assert "my-group/open exists and is public, which --private does not change" in complaints
    assert mine.repositories["models", "my-group/open"].files == before
    assert "private" in push(monkeypatch, capsys, made, "me/hidden")[1]  # an update of a private one


@pytest.mark.parametrize(
    ("token", "arguments", "status", "message"),
    [
        (None, ["me/x"], 1, "me/x: there is no token of the hub: log in with `hf auth login`, or set HF_TOKEN"),
        ("hf_unknownUnknownUnknownUnknown", ["me/x"], 1, "me/x: the hub does not know this token"),
        (MINE, ["other/new"], 1, "other/new: the hub does not allow it to the owner of this token (403: You don't have the rights"),
        (MINE, ["other/there"], 1, "other/there: the hub does not allow it to the owner of this token (403: Forbidden: you must have write"),
        (READER, ["reader/x"], 1, "reader/x: the hub does not allow it to the owner of this token (403"),
        (MINE, ["me/x", "--revision", "../x y"], 1, "me/x: the hub answers 400: Invalid reference name"),
        (MINE, ["a b"], 2, "REPO: 'a b' is no name of a repository; expected OWNER/NAME"),
        (MINE, ["https://huggingface.co/me/x"], 2, "is no name of a repository"),
        (MINE, ["me/x", "--step", "3"], 1, "3"),
        (MINE, ["me/x", "--step", "2", "--best"], 2, "--best: a step is given too"),
        (MINE, ["me/x", "--best"], 1, "has no held-out scores"),
    ],
)  # fmt: skip
def test_refusals(hub, made, monkeypatch, capsys, tmp_path, token, arguments, status, message):
    connect(monkeypatch, hub, tmp_path / "hub-cache", token)
    hub.model("other/there", {"README.md": b"theirs"})
    found, _, complaints = push(monkeypatch, capsys, made, *arguments)
    assert (found, message in " ".join(complaints.split())) == (status, True), complaints
    assert hub.messages == []
    assert hub.repositories["models", "other/there"].files == {"README.md": b"theirs"}


@pytest.mark.parametrize("how", ["closed", "offline", "broken"])
def test_out_of_reach(mine, made, monkeypatch, capsys, how):
    go_away(mine, monkeypatch, how)
    status, _, complaints = push(monkeypatch, capsys, made, "me/x")
    assert status == 1
    assert {
        "closed": "me/x: the hub is out of reach (",
        "offline": "me/x: the hub may not be asked, because HF_HUB_OFFLINE is set",
        "broken": "me/x: the hub answers 503",
    }[how] in complaints


def test_runs_that_are_none(mine, made, monkeypatch, capsys, tmp_path):
    assert "is no run directory" in push(monkeypatch, capsys, tmp_path / "absent", "me/x")[2]
    (tmp_path / "empty").mkdir()
    shutil.copy(made.config, tmp_path / "empty")
    assert "has no checkpoint yet" in push(monkeypatch, capsys, tmp_path / "empty", "me/x")[2]
    shutil.copytree(made.path, tmp_path / "copy", ignore=shutil.ignore_patterns("weights", "plots"))
    reported(RunDir(tmp_path / "copy"))
    status, printed, _ = push(monkeypatch, capsys, tmp_path / "copy", "me/x")  # checkpoints, but no weights yet
    assert (status, "weights of step 4" in printed) == (0, True)
    assert "pytorch_lora_weights.safetensors" in mine.repositories["models", "me/x"].files
    (tmp_path / "copy" / "weights").mkdir()
    shutil.copytree(made.weights, tmp_path / "copy" / "weights", dirs_exist_ok=True)
    (tmp_path / "copy" / "weights" / "notes.bin").write_bytes(b"x")
    reported(RunDir(tmp_path / "copy"))
    assert "notes.bin is no file of weights" in push(monkeypatch, capsys, tmp_path / "copy", "me/x")[2]


def test_full_weights_name_no_path(mine, raw_config, monkeypatch, capsys, tmp_path):
    run = reported(train_raw(changed(raw_config, "policy={kind: full}", "train.num_steps=1")))
    assert push(monkeypatch, capsys, run, "me/full")[0] == 0
    files = mine.repositories["models", "me/full"].files
    own = {
        file.relative_to(run.weights).as_posix(): file.read_bytes() for file in run.weights.rglob("*") if file.is_file()
    }
    assert own.keys() <= files.keys()
    places = [str(tmp_path).encode(), raw_config["model"]["path"].encode()]
    assert any(place in content for content in own.values() for place in places)  # diffusers writes where it read
    assert not [name for name, content in files.items() if any(place in content for place in places)]
    same = [name for name in own if not name.endswith(("config.json", "model_index.json", "sipo.json", "README.md"))]
    assert {"tokenizer/tokenizer.json", "unet/diffusion_pytorch_model.safetensors"} <= set(same)
    assert all(files[name] == own[name] for name in same)


def test_pairs_of_the_hub_are_named_by_commit(mine, raw_config, tiny_pairs, monkeypatch, capsys):
    repository = mine.data_set("o/pairs", {"pairs.parquet": tiny_pairs.read_bytes()})
    run = reported(train_raw(changed(raw_config, "data.path=hf://datasets/o/pairs", "train.num_steps=1")))
    assert push(monkeypatch, capsys, run, "me/x")[0] == 0
    files = mine.repositories["models", "me/x"].files
    assert (
        yaml.safe_load(files["config.yaml"])["data"]["path"] == f"hf://datasets/o/pairs@{repository.branches['main']}"
    )
    assert yaml.safe_load(files["README.md"].decode().split("---\n")[1])["datasets"] == ["o/pairs"]


def test_the_stand_in_refuses_what_the_hub_refuses(tmp_path, monkeypatch):
    """Its own checks fail where they should: another content under an object's name, a base that is a path."""
    import httpx

    with stand_in() as hub:
        assert httpx.put(f"{hub.url}/lfs/{64 * '0'}", content=b"x").status_code == 400
        card = {"content": "---\nbase_model: /a/b/c\n---\n", "repoType": "model"}
        assert httpx.post(f"{hub.url}/api/validate-yaml", json=card).status_code == 400
