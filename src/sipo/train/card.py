"""The model card beside a run's weights: what they are, how plain diffusers loads them, which program reads them."""

import json

from sipo.backbones import Backbone
from sipo.backbones.family import Family
from sipo.backbones.lora_names import Form
from sipo.backbones.single_file import is_single_file
from sipo.config import Config, ModelConfig
from sipo.errors import printable
from sipo.registry import miniature
from sipo.tables import code, code_block, markdown_text
from sipo.yaml12 import write_yaml

FILE = "`pytorch_lora_weights.safetensors`"
UNET = f"{FILE} is read by diffusers, ComfyUI, AUTOMATIC1111, Forge and kohya's scripts: its names are kohya's, and it holds alpha."
OTHER = (
    f"{FILE} is in diffusers' format. `sipo export RUN --out FOLDER --format comfyui` (or `kohya`) writes the names of "
    "ComfyUI (or kohya's scripts), and alpha with them."
)
FOR = {
    "diffusers": f"{FILE} is in diffusers' own names, with alpha in the metadata, for diffusers.",
    "comfyui": f"{FILE} is for ComfyUI (its folder `models/loras`).",
    "kohya": f"{FILE} is for kohya's scripts, and for programs that read their files.",
}


def model_card(config: Config, backbone: Backbone, step: int, is_lora: bool, form: Form | None) -> str:
    """Markdown with the hub's front matter: base, data, objective, how to load, which file is for what."""
    base, name = config.model.path, type(config.loss).__name__
    tags = dict.fromkeys(["sipo", name.lower(), "preference-optimization", *(["lora"] if is_lora else [])])
    front = {"base_model": base, "library_name": "diffusers", "tags": list(tags)}
    files = FOR[form] if form else UNET if "unet" in backbone.family.denoisers else OTHER
    first, *others = backbone.family.denoisers
    for part in others:
        files += (
            f"\n\nThe model has a denoiser `{first}` for much noise and a `{part}` for little: the file here is for the first, the "
            f"one in the folder `{part}` for the second. Load each into its own model."
        )
    files += "\n\n`sipo export RUN --out FOLDER --merge` writes the whole pipeline instead.\n\n"
    note = "" if config.model.caption_windows == 1 else (
        f"Captions were read in {config.model.caption_windows} windows of 75 tokens: use a program that does so "
        "(AUTOMATIC1111, ComfyUI), or `sipo generate`; plain diffusers cuts prompts at 77 tokens.\n\n"
    )  # fmt: skip
    if config.model.quantize:
        note += (
            f"It was trained with the base's linear layers in {config.model.quantize}, and goes into the base as it was "
            "published: its pictures may differ a little from those of the training.\n\n"
        )
    if backbone.family.note:
        note += f"{backbone.family.note}\n\n"
    settings = write_yaml(config.to_dict())
    return (
        f"---\n{printable(write_yaml(front))}---\n\n# {markdown_text(base)} aligned with {name}\n\n"
        f"{'LoRA adapter' if is_lora else 'Full pipeline'} after {step} steps on the preference pairs "
        f"{code(config.data.path)}, trained with `sipo`.\n\n"
        f"{code_block(snippet(config.model, backbone, is_lora), 'python')}\n{files if is_lora else ''}{note}"
        f"## Settings\n\n{code_block(settings, 'yaml')}"
    )


def snippet(model: ModelConfig, backbone: Backbone, is_lora: bool) -> str:
    """Python that gives the policy in plain diffusers."""
    if not is_lora:
        return (
            "from diffusers import DiffusionPipeline\n\n"
            'pipeline = DiffusionPipeline.from_pretrained("path/to/this/folder")\n'
        )
    pipeline, vae = backbone.family.name, backbone.family.vae.__name__
    used, lines, given = "DiffusionPipeline", [], ""
    if is_single_file(model.path) or model.pipeline:
        used = pipeline
    if model.vae:
        file = f', config={literal(backbone.folder)}, subfolder="vae"' if is_single_file(model.vae) else ""
        lines.append(f"vae = {vae}.{'from_single_file' if file else 'from_pretrained'}({literal(model.vae)}{file})")
        given = ", vae=vae"
    if is_single_file(model.path):
        lines.append(
            f"pipeline = {pipeline}.from_single_file({literal(model.path)}, config={literal(backbone.folder)}{given})"
        )
    else:
        where = "path/to/" if miniature(model.path) else ""
        keys = "".join(f", {key}={literal(value)}" for key in ("revision", "variant") if (value := getattr(model, key)))
        lines.append(f"pipeline = {used}.from_pretrained({literal(where + model.path)}{keys}{given})")
    parts = list(backbone.family.denoisers)
    if model.lora:
        first, *others = _loading(backbone.family, model.lora)
        both = "" if not others else f"components={json.dumps(parts)}"
        lines += [f"{first}  # what the base was before training", *others]
        if backbone.family.loads_lora:
            lines += [f"pipeline.fuse_lora({both})", "pipeline.unload_lora_weights()"]
        else:
            lines += [
                line for part in parts for line in (f"pipeline.{part}.fuse_lora()", f"pipeline.{part}.unload_lora()")
            ]
    lines += _loading(backbone.family, "path/to/this/folder")
    names = f"{vae}, {used}" if model.vae else used
    return f"from diffusers import {names}\n\n" + "\n".join(lines) + "\n"


def _loading(family: Family, where: str) -> list[str]:
    """A line for each denoiser; the files of later ones lie in folders named like the parts, beside the first one's."""
    first, *others = family.denoisers
    if not family.loads_lora:
        assert not others, "no family has several denoisers and a pipeline that loads no LoRA"
        return [f"pipeline.{first}.load_lora_adapter({literal(where)}, use_safetensors=True)"]
    beside = where.rpartition("/")[0] if where.endswith(".safetensors") else where
    return [
        f"pipeline.load_lora_weights({literal(where)})",
        *(f"pipeline.load_lora_weights({literal(f'{beside}/{part}')}, load_into_{part}=True)" for part in others),
    ]


def literal(text: object) -> str:
    """A text in Python's double quotes, without characters that are unseen."""
    return printable(json.dumps(str(text), ensure_ascii=False))
