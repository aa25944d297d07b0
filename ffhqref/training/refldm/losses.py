"""Losses of ReF-LDM's trainings (Hsiao et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Embed = Callable[[Tensor], Tensor]
"""A differentiable face embedder: float32 [B, 3, 112, 112] RGB in −1..1 to [B, dim]."""


def identity_crop(images: Tensor) -> Tensor:
    """Return the centre of faces, 6.25 % to 93.75 % on both axes, at 112 x 112 by area, as ReF-LDM does."""
    height, width = images.shape[2:]
    centre = images[:, :, height // 16 : height - height // 16, width // 16 : width - width // 16]
    return F.interpolate(centre, size=(112, 112), mode="area")


def identity_loss(restored: Tensor, target: Tensor, alpha: Tensor, embed: Embed) -> Tensor:
    """Return the timestep-scaled identity loss, the mean of sqrt(ᾱ_t) · (1 − cos).

    Args:
        restored: images that the prediction at step t implies, [B, 3, H, W] in −1..1; gradients go through.
        target: reconstructions of the ground truth by the first stage, as published, not the ground truth itself.
        alpha: ᾱ_t of each case, [B].
        embed: the face embedder.
    """
    with torch.no_grad():
        wanted = F.normalize(embed(identity_crop(target)), dim=1)
    found = F.normalize(embed(identity_crop(restored)), dim=1)
    return (alpha.sqrt() * (1.0 - (found * wanted).sum(dim=1))).mean()


def codebook_loss(latents: Tensor, codes: Tensor, commitment: float) -> Tensor:
    """Return the VQ loss; as in the published code the weight sits on the part that moves the codes."""
    return ((codes.detach() - latents) ** 2).mean() + commitment * ((codes - latents.detach()) ** 2).mean()


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the hinge loss of the discriminator's logits."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def adversarial_share(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return the ratio of the two losses' gradient norms at the decoder's last layer, at most 1e4."""
    wanted = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)[0]
    given = torch.autograd.grad(adversarial, last_layer, retain_graph=True)[0]
    made: Tensor = (wanted.norm() / (given.norm() + 1e-4)).clamp(0.0, 1e4).detach()
    return made


class PatchDiscriminator(nn.Module):
    """Logits for overlapping patches: the 70-pixel PatchGAN, with the parameter names of the VQGAN code."""

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels = width
        for index in range(1, layers + 1):
            wider = width * min(2**index, 8)
            stride = 2 if index < layers else 1
            parts += [nn.Conv2d(channels, wider, 4, stride, 1, bias=False), nn.BatchNorm2d(wider), nn.LeakyReLU(0.2)]
            channels = wider
        self.main = nn.Sequential(*parts, nn.Conv2d(channels, 1, 4, 1, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 1, h, w] of images [B, 3, H, W] in −1..1."""
        return cast("Tensor", self.main(images))
