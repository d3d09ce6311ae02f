"""Sampling by the package's own kernels, which keeps every state: what D3PO trains on."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from sipo.backbones.backbone import Backbone
from sipo.backbones.family import Conditioning, PartAdapter
from sipo.kernels import Kernel, transition
from sipo.rng import pair_randn
from sipo.samples.generate import TracingSampler
from sipo.samples.sources import SourceSampler
from sipo.samples.trajectory import Traced, trajectory_settings
from sipo.schedule import Schedule, VPSchedule, predict_x0_eps, previous_timestep


def grid(schedule: Schedule, num_inference_steps: int) -> Tensor:
    """(n + 1,) falling timesteps whose neighbours are one step of the kernel's grid apart.

    VP: diffusers' "leading" spacing with an offset of 1, down to 0; "trailing" where the last abar is 0, because noise
    that holds no data must be where sampling begins. Flow: u from 1 to 1/K in steps of 1/K, the last of which training
    takes too (`previous_timestep`).
    """
    if isinstance(schedule, VPSchedule):
        stride = schedule.num_train_timesteps // num_inference_steps
        is_zero = bool(schedule.alphas_cumprod[-1] == 0)
        first = schedule.num_train_timesteps - 1 if is_zero else (num_inference_steps - 1) * stride + 1
        times, count = [torch.tensor([first])], num_inference_steps
    else:
        times, count = (
            [torch.tensor([float(schedule.num_train_timesteps)], dtype=torch.float64)],
            num_inference_steps - 1,
        )
    for _ in range(count):
        times.append(previous_timestep(schedule, times[-1], num_inference_steps))
    return torch.cat(times)


def guided(
    backbone: Backbone, network: nn.Module, xt: Tensor, t: Tensor, text: Conditioning, empty: Conditioning, scale: float
) -> Tensor:
    """Classifier-free guidance in one forward: `empty + scale (text - empty)`; the text alone for a scale of 1, or a
    model that guidance was distilled into."""
    if scale == 1 or backbone.is_distilled:
        return backbone.predict(network, xt, t, text)
    both = {name: torch.cat([text[name], empty[name]]) for name in text}
    with_text, without = backbone.predict(network, torch.cat([xt, xt]), torch.cat([t, t]), both).float().chunk(2)
    return without + scale * (with_text - without)


def trajectory_sampler(
    backbone: Backbone, kernel: Kernel, num_inference_steps: int, guidance_scale: float, siblings: int
) -> TracingSampler | SourceSampler:
    """A sampler whose media come with their trajectories. Seeds of one multiple of `siblings` share the initial noise. In a
    model that reads a source the unconditional prediction reads it too.

    Raises ValueError for a kernel that adds no noise: its steps have no density.
    """
    if kernel.deterministic:
        raise ValueError(f"{kernel} adds no noise: D3PO compares densities of steps, and needs a kernel with eta > 0")
    times = grid(backbone.schedule, num_inference_steps)
    settings = trajectory_settings(kernel, num_inference_steps, guidance_scale)
    shape = backbone.adapter.latent_shape(backbone.size)

    @torch.no_grad()
    def sample(prompts: list[str], seeds: list[int], sources: Tensor | None = None) -> list[Traced]:
        device, half = backbone.device, backbone.dtype != torch.float32
        training = backbone.denoiser.training
        backbone.denoiser.eval()
        with backbone.encoders(), backbone.in_turn(), torch.autocast(device.type, backbone.dtype, enabled=half):
            pixels = None if sources is None else sources.to(device)
            text, empty = backbone.condition_guided(prompts, pixels)

            def predict(xt: Tensor, t: Tensor) -> Tensor:
                return guided(backbone, backbone.denoiser, xt, t, text, empty, guidance_scale)

            x = pair_randn(shape, 0, 0, torch.tensor(seeds) // siblings, "initial").to(device)
            states = walk(predict, backbone.schedule, kernel, times.to(device), x, seeds)
            adapter, x0 = backbone.adapter, states[-1]
            media = adapter.decode(
                backbone.pipeline, adapter.whole(x0, text) if isinstance(adapter, PartAdapter) else x0
            )
        backbone.denoiser.train(training)
        kept = torch.stack(states[: len(times)], 1).float().cpu()
        return [Traced(made, kept[i], times.double(), settings) for i, made in enumerate(media)]

    return SourceSampler(backbone.size.picture, sample) if backbone.architecture.takes_source else sample


def walk(
    predict: Callable[[Tensor, Tensor], Tensor], schedule: Schedule, kernel: Kernel, times: Tensor, x: Tensor,
    seeds: list[int],
) -> list[Tensor]:  # fmt: skip
    """The states at `times`, from x (B, ...) on; on a flow path also the data that the last one implies.

    The noise of a step is a function of the seed and the step.
    """
    states = [x]
    for step, (t, s) in enumerate(pairwise(times)):
        now, then = t.expand(len(x)), s.expand(len(x))
        moved = transition(kernel, schedule, *predict_x0_eps(schedule, predict(x, now).float(), x, now), now, then)
        z = pair_randn(x.shape[1:], 0, step, torch.tensor(seeds), "step").to(x.device)
        x = moved.mean + moved.std * z
        states.append(x)
    if not isinstance(schedule, VPSchedule):
        now = times[-1].expand(len(x))
        states.append(predict_x0_eps(schedule, predict(x, now).float(), x, now)[0])
    return states
