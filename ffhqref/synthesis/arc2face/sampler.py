"""Sampling of Arc2Face with its pose ControlNet, case by case from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ffhqref.synthesis.arc2face.networks import Arc2FaceNetworks

EMBEDDING = 512
"""Length of an ArcFace vector."""


def prompt_states(networks: Arc2FaceNetworks, embeddings: torch.Tensor) -> torch.Tensor:
    """Return the states of the empty prompt and of one identity prompt for each face.

    The vector, padded with zeros to the encoder's width, stands in place of the token "id" of "photo of a id person";
    then the whole encoder runs, its final norm included (Arc2Face's ``project_face_embs``).

    Args:
        networks: with the encoder.
        embeddings: float [B, 512], each of length 1.

    Returns:
        [1 + B, 77, width], the empty prompt first.
    """
    import torch

    encoder, config = networks.encoder, networks.config
    table = encoder.get_input_embeddings()
    empty, prompt = config.tokens
    ids = torch.tensor([empty, *[prompt] * len(embeddings)], device=table.weight.device)
    width = table.weight.shape[1]
    padded = torch.nn.functional.pad(embeddings, (0, width - embeddings.shape[1])).to(table.weight)

    def inject(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
        output = output.clone()
        output[1:, 1 + prompt[1:].index(config.identity_token)] = padded
        return output

    hook = table.register_forward_hook(inject)
    try:
        with torch.no_grad():
            states: torch.Tensor = encoder(ids)[0]
    finally:
        hook.remove()
    return states


def sample(
    networks: Arc2FaceNetworks,
    embeddings: torch.Tensor,
    normals: torch.Tensor,
    seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
) -> torch.Tensor:
    """Return images of these faces in these poses.

    The multistep DPM solver and the order of things are those of the published demo on diffusers'
    StableDiffusionControlNetPipeline. The start noise of a case comes from its own generator on the CPU in float32,
    so that it depends neither on the batch nor on the device; the demo draws on the device.

    Args:
        networks: loaded.
        embeddings: float [B, 512], each of length 1.
        normals: float [B, 3, S, S] in 0..1, normal maps.
        seeds: one a case.
        steps: of the solver; the demo takes 25.
        guidance_scale: the demo takes 3; at 1 or below the empty prompt is left out.

    Returns:
        float32 [B, 3, S, S] in 0..1.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler

    unet, vae, controlnet = networks.unet, networks.vae, networks.controlnet
    count, guided = len(embeddings), guidance_scale > 1.0
    states = prompt_states(networks, embeddings)
    empty, named = states[:1].expand(count, -1, -1), states[1:]
    states = torch.cat([empty, named]) if guided else named
    condition = normals.to(device=unet.device, dtype=unet.dtype)
    condition = torch.cat([condition, condition]) if guided else condition
    side = normals.shape[-1] // 2 ** (len(vae.config.block_out_channels) - 1)
    noise = [
        torch.randn((unet.config.in_channels, side, side), generator=torch.Generator().manual_seed(int(seed)))
        for seed in seeds
    ]
    scheduler = DPMSolverMultistepScheduler(**networks.config.scheduler)
    scheduler.set_timesteps(steps, device=unet.device)
    latents = torch.stack(noise).to(device=unet.device, dtype=unet.dtype) * scheduler.init_noise_sigma
    with torch.no_grad():
        for time in scheduler.timesteps:
            entered = scheduler.scale_model_input(torch.cat([latents, latents]) if guided else latents, time)
            down, middle = controlnet(
                entered, time, encoder_hidden_states=states, controlnet_cond=condition, return_dict=False
            )
            predicted = unet(
                entered,
                time,
                encoder_hidden_states=states,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                return_dict=False,
            )[0]
            if guided:
                without, wanted = predicted.chunk(2)
                predicted = without + guidance_scale * (wanted - without)
            latents = scheduler.step(predicted, time, latents, return_dict=False)[0]
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    made: torch.Tensor = (decoded.float() / 2.0 + 0.5).clamp(0.0, 1.0)
    return made
