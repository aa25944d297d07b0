"""RestorerID's denoiser: diffusers' U-Net of Stable Diffusion 1.5 with modulated blocks and an identity branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterFaceIDPlusImageProjection
from torch import Tensor, nn

from ffhqref.zoo.restorerid.blocks import Conditions, ModulatedBlock, Modulation

if TYPE_CHECKING:
    from ffhqref.zoo.restorerid.config import AdapterConfig, RestorerIDConfig, VAEConfig


class Denoiser(nn.Module):
    """Predicted noise of a latent, steered by text, identity tokens and structure features.

    Args:
        config: widths.
    """

    def __init__(self, config: RestorerIDConfig) -> None:
        super().__init__()
        self.conditions = Conditions()
        self.unet = plain_unet(config)
        widths = config.unet
        modulation = Modulation(widths.semb_channels, widths.context_dim, config.spade_hidden)
        for block in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            for index, plain in enumerate(block.resnets):
                sizes = plain.in_channels, plain.time_emb_proj.in_features, plain.out_channels
                block.resnets[index] = ModulatedBlock(*sizes, modulation, self.conditions)
        self._branches: list[IPAdapterAttnProcessor2_0] = []
        for name, layer in self.unet.named_modules():
            if name.endswith(".attn2"):
                layer.set_processor(
                    IPAdapterAttnProcessor2_0(layer.inner_dim, widths.context_dim, (config.adapter.num_tokens,))
                )
                self._branches.append(layer.processor)

    def forward(
        self, x: Tensor, time: int, text: Tensor, identity: Tensor, features: dict[int, Tensor], scale: float
    ) -> Tensor:
        """Return the predicted noise, [B, 4, h, w].

        Args:
            x: latents, [B, 4, h, w].
            time: of all of them.
            text: states, [B, 77, C].
            identity: tokens, [B, n, C].
            features: of the structure encoder, [1, F, h, w] by their width w.
            scale: weight of the identity branch of the cross-attention.
        """
        self.conditions.features, self.conditions.identity = features, identity
        for branch in self._branches:
            branch.scale = [scale]
        (noise,) = self.unet(x, time, encoder_hidden_states=(text, [identity]), return_dict=False)
        return cast("Tensor", noise)


def own_name(name: str) -> str:
    """Return the name in `Denoiser` of a tensor that carries diffusers' name, the identity branch's as published."""
    for layer in ("to_k_ip", "to_v_ip"):
        name = name.replace(f".attn2.{layer}.", f".attn2.processor.{layer}.0.")
    return f"unet.{name}"


def plain_unet(config: RestorerIDConfig) -> Any:
    """Return diffusers' U-Net of these widths."""
    widths = config.unet
    levels = len(widths.channel_mult)
    attends = [2**level in widths.attention_resolutions for level in range(levels)]
    return UNet2DConditionModel(
        block_out_channels=[mult * widths.model_channels for mult in widths.channel_mult],
        down_block_types=["CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends],
        up_block_types=["CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)],
        layers_per_block=widths.num_res_blocks,
        attention_head_dim=widths.num_heads,  # diffusers calls the number of heads so
        cross_attention_dim=widths.context_dim,
    )


def vae(config: VAEConfig) -> Any:
    """Return diffusers' auto-encoder of these widths."""
    levels = len(config.ch_mult)
    return AutoencoderKL(
        block_out_channels=[mult * config.ch for mult in config.ch_mult],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        layers_per_block=config.num_res_blocks,
        latent_channels=4,
    )


def identity_projection(config: AdapterConfig, hidden: int) -> Any:
    """Return diffusers' projection of an ArcFace vector and CLIP states to tokens, without its short cut.

    Args:
        config: widths.
        hidden: channels of CLIP's states.
    """
    return IPAdapterFaceIDPlusImageProjection(
        embed_dims=config.context,
        output_dims=config.context,
        hidden_dims=hidden,
        id_embeddings_dim=config.id_dim,
        depth=config.depth,
        dim_head=config.dim_head,
        heads=config.context // config.dim_head,
        num_tokens=config.num_tokens,
        ffn_ratio=config.ff_mult,
    )
