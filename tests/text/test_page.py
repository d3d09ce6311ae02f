"""The code that docs/text.md shows, run as it stands but for the model's name."""

import json
import re
from pathlib import Path

from support.text import language_model, preferences, tokenizer

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/text.md").read_text()
LOSS, TRAINER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_loss_runs():
    names: dict = {}
    exec(LOSS, names)
    assert names["losses"].shape == (4,)
    assert names["logps"].grad.isfinite().all()


def test_the_trainer_runs(tmp_path, monkeypatch):
    """From a folder, without a reference of its own, in bfloat16, which is TRL's default."""
    language_model(0).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, preferences().to_list())))
    monkeypatch.chdir(tmp_path)
    code = TRAINER.replace("Qwen/Qwen3-0.6B", str(tmp_path / "model"))
    names: dict = {}
    exec(
        code.replace('"runs/text", ', '"runs/text", use_cpu=True, max_steps=1, logging_steps=1, report_to=[], '), names
    )
    logged = names["trainer"].state.log_history[0]
    assert abs(logged["loss"] - 0.6931) < 1e-3  # the policy is the reference
    assert logged["sipo/weight"] == 1
