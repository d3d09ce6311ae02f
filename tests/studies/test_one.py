import subprocess
import sys


def test_a_run_that_cannot_be_ends_its_log_with_the_reason(tmp_path):
    """The model is read first of all."""
    config = tmp_path / "run.yaml"
    config.write_text("run: r\nmodel: {path: nowhere}\ndata: {path: nowhere.parquet}\nloss: {name: sipo}\n")
    ended = subprocess.run(
        [sys.executable, "-m", "sipo.studies.one", str(config), "miniature"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "nowhere" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
