"""How each miniature is built, by its name."""

from sipo.mini import FLOW, STILL, VIDEO
from sipo.mini.build import Kind
from sipo.mini.flow import networks as flow_networks
from sipo.mini.flow.recipe import FlowRecipe
from sipo.mini.flow.train import train_transformer
from sipo.mini.pictures import encode_pool
from sipo.mini.pipeline import assemble
from sipo.mini.prompts import HELDOUT
from sipo.mini.recipe import Recipe
from sipo.mini.train_text import train_text
from sipo.mini.train_unet import make_networks, train_unet
from sipo.mini.train_vae import train_vae
from sipo.mini.video import data, wording
from sipo.mini.video import networks as video_networks
from sipo.mini.video import train as video_train
from sipo.mini.video.recipe import VideoRecipe
from sipo.mini.wording import all_prompts

_OF_MEDIA = {"vae": ("seed", "mixture", "vae", "kl", "vae_degraded"), "text": ("seed", "text")}

STILL_KIND = Kind(
    miniature=STILL,
    prompts=all_prompts,
    held_out=HELDOUT,
    recipe=Recipe,
    stages={
        **_OF_MEDIA,
        "clean": (
            *(
                "clean",
                "snr_gamma",
                "snr_power",
                "t_power",
                "prompt_dropout",
                "guide_weight",
                "lookup_heads",
                "pool_size",
            ),
        ),
        "noisy": ("noisy", "noisy_data"),
    },
    train_vae=train_vae,
    train_text=train_text,
    encode_pool=encode_pool,
    make_networks=make_networks,
    train_denoiser=train_unet,
    assemble=assemble,
)

FLOW_KIND = Kind(
    miniature=FLOW,
    prompts=all_prompts,
    held_out=HELDOUT,
    recipe=FlowRecipe,
    stages={
        **_OF_MEDIA,
        "clean": ("clean", "shift", "prompt_dropout", "guide_weight", "lookup_heads", "pool_size"),
        "noisy": ("noisy", "noisy_data"),
    },
    train_vae=train_vae,
    train_text=train_text,
    encode_pool=encode_pool,
    make_networks=flow_networks.make_networks,
    train_denoiser=train_transformer,
    assemble=flow_networks.assemble,
)

VIDEO_KIND = Kind(
    miniature=VIDEO,
    prompts=wording.judged_prompts,
    held_out=wording.HELDOUT,
    recipe=VideoRecipe,
    stages={
        **_OF_MEDIA,
        "vae": (*_OF_MEDIA["vae"], "stills"),
        "clean": ("clean", "prompt_dropout", "guide_weight", "lookup_heads", "pool_size"),
        "noisy": ("noisy", "noisy_data"),
    },
    train_vae=video_train.train_vae,
    train_text=video_train.train_text,
    encode_pool=data.encode_pool,
    make_networks=video_networks.make_networks,
    train_denoiser=video_train.train_transformer,
    assemble=video_networks.assemble,
)

KINDS = {each.miniature.name: each for each in (STILL_KIND, FLOW_KIND, VIDEO_KIND)}
