"""A judge as the scorer of a folder: scored once, cost counted, tried again where there was no answer."""

import io

from PIL import Image
from rich.console import Console
from support.endpoint import Reply, completion, stand_in

from sipo.evaluate.scores.sources import find_media
from sipo.evaluate.scores.table import print_scores, score_folders
from sipo.jsonl import read_jsonl
from sipo.samples.folder import PromptItem
from sipo.samples.generate import generate
from sipo.scorers.choice import choose_one, choose_scorers


def test_a_folder_is_scored_once_and_its_price_is_shown(tmp_path):
    def draw(prompts, seeds):
        return [Image.new("RGB", (8, 8), (40 * seed,) * 3) for seed in seeds]

    folder = generate(draw, [PromptItem("grey", seed) for seed in range(5)], tmp_path / "media", {"model": "grey"})
    is_mended = []

    def answer(seen):
        if seen.brightness[0] > 150 and not is_mended:
            return Reply({"error": {"message": "not this one"}}, 400)
        return completion(f"Rating: {seen.brightness[0]:.0f}", tokens=(1000, 10))

    def scored() -> str:
        console = Console(file=io.StringIO(), width=200)
        scorers = choose_scorers([file]).load_all()
        print_scores(score_folders(find_media(folder), scorers, 2, Console(quiet=True)), console)
        return console.file.getvalue()

    with stand_in(answer) as server:
        file = server.judge(tmp_path, price={"input": 1.0, "output": 100.0})
        said = scored()
        assert "asked: judge: 4 answers, 4,000 tokens in, 40 out, 0.01 US dollars" in said
        assert "00004.png: HTTP 400: not this one" in said
        is_mended.append(True)
        assert "asked: judge: 5 answers" in scored()
        assert len(server.seen) == 6
        scored()
        assert len(server.seen) == 6
    lines = read_jsonl(folder / "scores.judge.jsonl")
    assert [round(line["score"] / 40) for line in lines] == [0, 1, 2, 3, 4]
    assert lines[1]["reasons"] == ["Rating: 40"]
    assert lines[1]["scorer"]["model"] == "stand-in"
    assert choose_one(file).names == ("judge",)  # as the configs of online rounds name it
