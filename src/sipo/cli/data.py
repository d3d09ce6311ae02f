"""`sipo data`: look at pairs before training."""

from pathlib import Path
from typing import Annotated

import typer

from sipo.cli.common import ConfigFile, Overrides, console, quiet_libraries, say, together
from sipo.errors import UsageError

data = typer.Typer(no_args_is_help=True, help="Look at preference pairs before training, and encode them once.")


@data.command("check")
def data_check(
    path: Annotated[
        str,
        typer.Argument(
            help="Parquet shards, a datasets folder, a JSONL manifest, hf://datasets/OWNER/NAME, or miniature."
        ),
    ],
    ties: Annotated[str, typer.Option(help="drop: left out; error: reported as bad rows.")] = "drop",
    max_pairs: Annotated[int | None, typer.Option(help="Read only the first N rows.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Larger images and frames are reported, not decoded.")] = 64_000_000,
    num_frames: Annotated[int | None, typer.Option(help="Frames of the video model: shorter videos are bad.")] = None,
    fps: Annotated[float | None, typer.Option(help="Rate of the video model; needed with --num-frames.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    all_rows: Annotated[bool, typer.Option("--all", help="Name every bad row, not the first few of a kind.")] = False,
    model: Annotated[
        str | None, typer.Option(help="As model.path, or a config: also count the captions that its text encoders cut.")
    ] = None,
) -> None:
    """Go through every row and report all that is wrong. Exits with 1 when rows are bad, or none is usable."""
    import json

    from sipo.data.pairs.check import check_pairs, default_memory
    from sipo.files import write_atomic
    from sipo.size import Size

    if (num_frames is None) != (fps is None):
        raise UsageError("--num-frames and --fps say how long a model's videos are together: give both or neither")
    size = None
    if num_frames is not None and fps is not None:
        if num_frames < 1 or fps <= 0:
            raise UsageError("--num-frames and --fps must be positive")
        size = Size(height=1, width=1, num_frames=num_frames, fps=fps)  # pixels do not matter to the check
    memory = default_memory()  # every byte is read, and `train` need not read it again
    found = check_pairs(path, ties, max_pairs, max_pixels, None, True, memory, size, recall=False)  # pyright: ignore[reportArgumentType]  # checks ties
    found.render(console(), None if all_rows else 5)
    if json_file:
        write_atomic(json_file, json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    if model:
        quiet_libraries()
        from sipo.backbones import read_architecture
        from sipo.backbones.backbone import download
        from sipo.backbones.captions import overlong
        from sipo.config import ModelConfig, is_config_file, load_config
        from sipo.data.pairs.open import open_pairs

        chosen = load_config(model).model if is_config_file(model) else ModelConfig(model)
        architecture, source = read_architecture(chosen), open_pairs(path, max_pairs=max_pairs)
        cut = overlong(architecture, download(architecture), source.prompts(found.usable))
        for line in cut or ["no caption is longer than the text encoders read"]:
            say(str(line))
    if not found.num_usable:
        console().print("nothing is usable: there is no pair to train on", style="red")
    if found.num_bad or not found.num_usable:
        raise typer.Exit(1)


@data.command("import")
def data_import(
    source: Annotated[Path, typer.Argument(help="A folder, a table or tars of pairs in another layout.")],
    out: Annotated[Path, typer.Option(help="The manifest to write, such as pairs.jsonl.")] = Path("pairs.jsonl"),
    images: Annotated[
        Path | None, typer.Option(help="Where the media are that a table names; default: beside it.")
    ] = None,
    ranking: Annotated[str, typer.Option(help="Of ranked lists: best-worst, or all pairs.")] = "best-worst",
) -> None:
    """Turn pairs in other people's layouts into a manifest; docs/data.md has an example of each."""
    from sipo.data.pairs.importing import import_pairs

    if ranking not in ("best-worst", "all"):
        raise UsageError(f"--ranking: {ranking!r} is none of best-worst, all")
    found = import_pairs(source, out, images, ranking)  # pyright: ignore[reportArgumentType]  # judged above
    left = "".join(f"; {number:,} rows left out: {why}" for why, number in found.items() if why != "pairs")
    say(f"{found['pairs']:,} pairs in {out}{left}")


@data.command("encode")
def data_encode(config: ConfigFile, overrides: Overrides = None) -> None:
    """Encode the pairs of a config into its data.cache, as `train` would; the same command resumes."""
    from sipo.config import load_config

    parsed = load_config(config, overrides)
    if parsed.data.cache is None:
        raise UsageError("data.cache: name the folder to encode into, in the config or as data.cache=FOLDER")
    quiet_libraries()
    from sipo.train.opening import encode

    say(f"{encode(parsed, console())} pairs in {parsed.data.cache}")


@data.command("profile")
def data_profile(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page; default: the config's run, with -profile.")
    ] = None,
    num_pairs: Annotated[
        int, typer.Option(min=2, help="Pairs, evenly spread, whose errors and scores are measured.")
    ] = 256,
    draws: Annotated[int, typer.Option(min=1, help="Draws of timestep and noise of each.")] = 8,
    own_samples: Annotated[int, typer.Option(min=0, help="Samples that the base draws for comparison; 0: none.")] = 64,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="As of `sipo score`: how often does it agree with the labels? May be repeated."),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FILE of prompts that must not be among the captions; GenEval's are compared anyway."),
    ] = None,
) -> None:
    """What the pairs are like before training: the base's errors, distance from it, repeats, leaks, balance, agreement.

    Writes profile.html and profile.json. Run the same command again to resume.
    """
    from sipo.config import load_config
    from sipo.scorers.choice import choose_scorers, named_values

    parsed, files = load_config(config, overrides), named_values("--benchmark", benchmark or ())
    quiet_libraries()
    from sipo.profile.leaks import benchmarks
    from sipo.profile.page import lead, notices
    from sipo.profile.run import ProfileRequest, profile

    folder, scorers = out or Path(f"{parsed.run}-profile"), choose_scorers(scorer or ())
    scorers.load_all() if scorers.names else None  # an unknown one is refused before the work
    prompts = benchmarks(files, parsed.model.path, parsed.data.path)
    request = ProfileRequest(parsed, folder, num_pairs, draws, own_samples, scorers, prompts)
    with together() as (processes, screen):
        record = profile(request, screen, processes)
    if record:
        say(
            "\n".join(
                [lead(record), *(f"notice: {text}" for text in notices(record)), f"page: {folder / 'profile.html'}"]
            )
        )
