"""Every reader of files from outside, with a small file that it reads: `READERS[name].write(folder)`, then `.read(path)`."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from safetensors.torch import save
from support import videos
from support.pictures import pick_a_pic, picture

from sipo.annotate.ballots import Ballot, ballots_csv
from sipo.annotate.foreign import read_foreign
from sipo.backbones.architecture import SHIPPED, read_architecture
from sipo.backbones.lora_merge import read_lora_file
from sipo.backbones.single_file import read_shapes
from sipo.config import ModelConfig, load_config
from sipo.data.cache.plan import FORMAT
from sipo.data.cache.read import Cache
from sipo.data.cache.shards import write_shard
from sipo.data.media.decode_video import measure
from sipo.data.media.pictures import decode
from sipo.data.pairs.check import check_pairs
from sipo.data.pairs.importing import import_pairs
from sipo.data.pairs.open import open_pairs
from sipo.evaluate.scores.files import read_score_file, read_scores
from sipo.geneval.layout import read_metadata
from sipo.geneval.results import read_official
from sipo.rounds.config import load_online
from sipo.run import RunDir, read_run
from sipo.samples.folder import read_samples, read_settings
from sipo.samples.prompts import read_prompts
from sipo.samples.trajectory import read_step, read_times
from sipo.scorers.weights import read_tensors
from sipo.studies.grid import parse_study, read_study
from sipo.studies.published import read_csv
from sipo.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sipo.vbench.files import read_results, read_suite


@dataclass(frozen=True)
class Reader:
    """name: of the file in its folder. content: a whole one. read: from its path. `slow`: tens of milliseconds a call."""

    name: str
    content: Callable[[], bytes]
    read: Callable[[Path], Any]
    slow: bool = False
    beside: Callable[[Path], object] = lambda folder: None  # puts there what the file needs

    def write(self, folder: Path) -> Path:
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.beside(path.parent)
        path.write_bytes(self.content())
        return path


def lines(*records: dict) -> Callable[[], bytes]:
    return lambda: "".join(json.dumps(record) + "\n" for record in records).encode()


def value(content: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(content).encode()


def table(columns: dict[str, list]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def two_pictures(folder: Path) -> None:
    for n in range(2):
        (folder / f"{n}.png").write_bytes(picture(n))


def check(path: Path) -> None:
    source = open_pairs(path)
    report = check_pairs(source, progress=False, workers=1)
    source.prompts(report.usable)
    assert source.stamp


def imported(path: Path) -> None:
    import_pairs(path, path.parent / "out.jsonl")


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {
            "a.0.png": picture(0),
            "a.1.png": picture(1),
            "a.json": b'{"caption": "p", "label_0": 1}',
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def lora() -> bytes:
    tensors = {"unet.a.lora_A.weight": torch.ones(2, 3), "unet.a.lora_B.weight": torch.ones(3, 2)}
    return save(tensors, {"lora_adapter_metadata": '{"unet.lora_alpha": 2}'})


def trajectory() -> bytes:
    return save({"states": torch.ones(3, 2), "times": torch.linspace(1, 0, 3)}, {"grid": "2"})


def saved_tensors() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    return buffer.getvalue()


def checkpoint(folder: Path) -> None:
    """A whole one of step 1, in the folder above."""
    weight = torch.nn.Parameter(torch.ones(2))
    state = torch.optim.AdamW([weight]).state_dict()
    save_checkpoint(folder.parent, Checkpoint(1, {"w": weight.detach()}, state, None, {"scaler": None}), 1)


@cache
def manifest() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        checkpoint(Path(folder) / "x")
        return (Path(folder) / "000001" / "manifest.json").read_bytes()


def run_folder(folder: Path) -> None:
    (folder / "config.yaml").write_text("loss: {name: sipo}\ntrain: {num_steps: 2}\n")
    (folder / "metrics.jsonl").write_bytes(METRICS())


CONFIG = b"run: r\nmodel: {path: m}\ndata: {path: d, validation: 0.1}\nloss: {name: sipo, beta: 1.0}\ntrain:\n  betas: [0.9, 0.99]\n"
STUDY = b"name: s\ntitle: T\nquestion: q\nbase: {model: {path: m}, data: {path: d}, loss: {name: sipo}}\ncurves: beta\naxes:\n  beta: {loss.beta: [0.1, 1]}\nseeds: [0]\n"
ONLINE = (
    CONFIG.replace(b"path: d, ", b"")
    + b"rounds: {num_rounds: 2, scorer: miniature, prompts: miniature, num_prompts: 2, held_out: miniature}\n"
)
METRICS = lines(
    {"kind": "train", "step": 1, "loss": 0.5, "bins": {"edges": [0, 1], "count": [1]}, "seconds": {"total": 1.0}},
    {"kind": "validation", "step": 1, "loss": 0.5, "pruned": 0.1},
    {"kind": "warning", "step": 1, "message": "m"},
)
SAMPLES = lines(*({"file": f"{n}.png", "prompt": "p", "seed": n, "metadata": {"tag": "x"}} for n in range(2)))
SCORES = lines(*({"file": f"{n}.png", "prompt": "p", "seed": n, "hash": "h", "score": 0.5} for n in range(2)))
GENEVAL = {"prompt": "a cat", "tag": "single_object", "include": [{"class": "cat", "count": 1}]}
LABEL_STUDIO = [
    {
        "data": {"prompt": "p", "image1": "a", "image2": "b"},
        "annotations": [
            {"completed_by": 1, "created_at": "2026-01-02T03:04:05Z", "result": [{"value": {"selected": "left"}}]}
        ],
    }
]
RAPIDATA = {"results": [{"context": "p", "aggregatedResults": {"x": 2, "y": 1}}]}
RANKED = {"prompt": "p", "image_path": ["0.png", "1.png"], "human_preference": [1, 0]}
PAIRS = lines(*({"prompt": f"p{n}", "chosen": "0.png", "rejected": "1.png", "strength": 0.8} for n in range(2)))


MADE_BY = {"format": FORMAT, "flip": False}
ENCODED = ("text-00000.safetensors", "pairs-00000.safetensors")
PLANNED = {
    "made_by": MADE_BY,
    "rows": [0, 1],
    "prompts": ["", "p"],
    "prompt_of": [1, 1],
    "pairs_per_shard": 2,
    "prompts_per_shard": 2,
}


def cache_files(folder: Path) -> None:
    """A whole cache: one shard of texts, one of pairs."""
    (folder / "plan.json").write_text(json.dumps(PLANNED))
    for name in ENCODED:
        write_shard(folder, name, save({"x": torch.ones(2, 1), "strength": torch.ones(2)}, {"ids": '["a", "b"]'}))
    (folder / "manifest.json").write_bytes(cache_manifest())


def cache_manifest() -> bytes:
    content = save({"x": torch.ones(2, 1), "strength": torch.ones(2)}, {"ids": '["a", "b"]'})
    checksum = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return json.dumps({"made_by": MADE_BY, "shards": dict.fromkeys(ENCODED, checksum)}).encode()


def of_cache(path: Path) -> None:
    opened = Cache(path.parent)
    opened.refuse(opened.damaged(opened.unverified()))
    for position in range(len(opened)):
        assert opened.get(position).id
        assert opened.conditioning(opened.get(position).prompt)


STABLE_DIFFUSION = SHIPPED / "stable-diffusion-v1-5" / "stable-diffusion-v1-5"


def pipeline_configs(folder: Path) -> None:
    """All configs of a Stable Diffusion, of which one lies in this folder, "sd" or one below it."""
    root = folder if folder.name == "sd" else folder.parent
    shutil.copytree(STABLE_DIFFUSION, root, dirs_exist_ok=True)


def config_of_pipeline(name: str) -> Reader:
    """One of the configs in a checkpoint's folder."""

    def read(path: Path) -> None:
        root = path.parent if path.parent.name == "sd" else path.parent.parent
        assert read_architecture(ModelConfig(str(root))).size().height

    return Reader(f"sd/{name}", (STABLE_DIFFUSION / name).read_bytes, read, slow=True, beside=pipeline_configs)


def study():
    return parse_study(yaml.safe_load(STUDY), "study")


def study_table() -> bytes:
    return b"beta,seed,settings,seconds,step,score\n0.1,0,abc,9,0,0.5\n0.1,0,abc,9,2,0.6\n"


def of_run(path: Path) -> None:
    record = read_run(RunDir(path.parent))
    assert record.num_steps >= record.last_step


READERS: dict[str, Reader] = {
    "a PNG": Reader("a.png", lambda: picture(1), decode),
    **{f"a {form}": Reader(f"a.{form.lower()}", lambda form=form: picture(1, format=form), decode) for form in ("JPEG", "WEBP", "GIF", "TIFF", "BMP")},
    "a video": Reader("a.mp4", lambda: videos.video(videos.noise(4), 8), measure),
    "pairs, JSONL": Reader("pairs.jsonl", PAIRS, check, beside=two_pictures),
    "pairs, parquet": Reader("pairs.parquet", lambda: table(pick_a_pic(2)), check, slow=True),
    "an import of JSON lines": Reader("ranked.jsonl", lines(RANKED), imported, beside=two_pictures),
    "an import of a CSV": Reader("ab.csv", lambda: b"prompt,image_a,image_b,winner\np,0.png,1.png,a\n", imported, beside=two_pictures),
    "an import of a parquet": Reader("ab.parquet", lambda: table({k: [v] for k, v in RANKED.items()}), imported, beside=two_pictures),
    "an import of a tar": Reader("a.tar", tar, imported),
    "a config": Reader("config.yaml", lambda: CONFIG, load_config),
    "a study": Reader("study.yaml", lambda: STUDY, lambda path: read_study(str(path))),
    "prompts, text": Reader("p.txt", lambda: b"a cat\na dog\n", read_prompts),
    "prompts, JSONL": Reader("p.jsonl", lines({"prompt": "a cat", "tag": "x"}), read_prompts),
    "prompts, JSON": Reader("anime.json", value(["a cat", "a dog"]), read_prompts),
    "prompts, TSV": Reader("p.tsv", lambda: b"Prompt\tCategory\na cat\tanimals\n", read_prompts),
    "prompts, CSV": Reader("p.csv", lambda: b'Prompts,Category\n"a cat, red",Animals\n', read_prompts),
    "prompts, parquet": Reader("p.parquet", lambda: table({"caption": ["a cat", "a dog"]}), read_prompts),
    "samples": Reader("samples.jsonl", SAMPLES, lambda path: read_samples(path.parent)),
    "settings of samples": Reader("settings.json", value({"fps": 8}), lambda path: read_settings(path.parent)),
    "scores": Reader("s.jsonl", SCORES, read_score_file),
    "scores beside samples": Reader("scores.x.jsonl", SCORES, lambda path: read_scores(path.parent, "x"), beside=lambda folder: (folder / "samples.jsonl").write_bytes(SAMPLES())),
    "GenEval's metadata": Reader("metadata.jsonl", lines(GENEVAL), read_metadata),
    "GenEval's results": Reader("results.jsonl", lines({"tag": "counting", "correct": True, "metadata": "{}"}), read_official),
    "VBench's prompts": Reader("info.json", value([{"prompt_en": "a cat", "dimension": ["scene"]}]), read_suite),
    "VBench's results": Reader("x_eval_results.json", value({"scene": [0.5, []]}), lambda path: read_results(path.parent)),
    "votes, CSV": Reader("v.csv", lambda: ballots_csv([Ballot("p", 0, ("x", "y"), "a", "me", seconds=1.5)]).encode(), read_foreign),
    "votes of Label Studio": Reader("ls.json", value(LABEL_STUDIO), read_foreign),
    "votes of Rapidata": Reader("rd.json", value(RAPIDATA), read_foreign),
    "a LoRA": Reader("l.safetensors", lora, read_lora_file),
    "a checkpoint of one file": Reader("m.safetensors", lora, read_shapes),
    "a scorer's weights": Reader("w.safetensors", lora, read_tensors),
    "a scorer's weights of torch": Reader("w.pt", saved_tensors, read_tensors),
    "a trajectory": Reader("0.trajectory.safetensors", trajectory, lambda path: (read_times(path.with_name("0.png")), read_step(path.with_name("0.png"), 0))),
    "a checkpoint's manifest": Reader("000001/manifest.json", manifest, lambda path: load_checkpoint(path.parent.parent, 1), beside=checkpoint),
    "a run's metrics": Reader("metrics.jsonl", METRICS, of_run, beside=run_folder),
    "a run's config": Reader("config.yaml", lambda: b"loss: {name: sipo}\ntrain: {num_steps: 2}\n", of_run, beside=run_folder),
    "a cache's plan": Reader("plan.json", value(PLANNED), of_cache, beside=cache_files),
    "a cache's manifest": Reader("manifest.json", cache_manifest, of_cache, beside=cache_files),
    "an online config": Reader("online.yaml", lambda: ONLINE, load_online),
    "a study's results": Reader("s.csv", study_table, lambda path: read_csv(study(), path)),
    **{f"a pipeline's {name}": config_of_pipeline(name) for name in ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")},
    "a run's environment": Reader("env.json", value({"device": "cpu"}), of_run, beside=run_folder),
}  # fmt: skip
