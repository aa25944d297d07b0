"""SDXL's prompt with identity tokens in it: the text states, and where the tokens go.

Public names: `TextEncoders` (both tokenizers and text encoders of a base folder), `TextStates`, `insert_identity`,
`time_ids`, `PROMPT`, `KEY_WORD`.

Source: FaceMe, published code (commit 8973f65): ``prepare_prompt`` of infer.py; train.py does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.shared.model_folder import import_transformers, load_text_encoder, load_tokenizer

if TYPE_CHECKING:
    import torch

PROMPT = "A photo of face."
"""Positive and negative prompt of training, and default at inference."""

KEY_WORD = "face"
"""The word whose token gives way to the identity tokens."""


@dataclass(frozen=True)
class TextStates:
    """One prompt, encoded."""

    tokens: tuple[torch.Tensor, torch.Tensor]
    """Ids of both tokenizers, int64 [1, 77] each."""
    states: torch.Tensor
    """[1, 77, 2048]: second-to-last hidden states of both encoders, joined."""
    pooled: torch.Tensor
    """[1, 1280]: projected output of the second encoder."""


class TextEncoders:
    """Both tokenizers and text encoders of a SDXL base folder, in float32.

    Args:
        base: the folder.
        device: where they work and where the states lie.

    Raises:
        DependencyError: transformers or accelerate is not installed.
        WeightsError: a part is absent, damaged, or of other names or shapes than its config says.
    """

    def __init__(self, base: str | Path, device: str = "cpu") -> None:
        transformers = import_transformers()
        folder = Path(base)
        self.device = device
        self._tokenizers = (load_tokenizer(folder / "tokenizer"), load_tokenizer(folder / "tokenizer_2"))
        self._encoders = (
            load_text_encoder(transformers.CLIPTextModel, folder / "text_encoder", device),
            load_text_encoder(transformers.CLIPTextModelWithProjection, folder / "text_encoder_2", device),
        )

    def tokens(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the ids of both tokenizers, int64 [1, 77] each: padded, and cut where the prompt is longer."""
        import torch

        found = [
            tokenizer(prompt, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)["input_ids"]
            for tokenizer in self._tokenizers
        ]
        return torch.tensor([found[0]]), torch.tensor([found[1]])

    def encode(self, prompt: str) -> TextStates:
        """Return the states of a prompt on the encoders' device; no gradients."""
        import torch

        tokens = self.tokens(prompt)
        states = []
        with torch.no_grad():
            for encoder, ids in zip(self._encoders, tokens, strict=True):
                output = encoder(ids.to(self.device), output_hidden_states=True)
                states.append(output.hidden_states[-2])
        return TextStates(tokens, torch.cat(states, dim=-1), output.text_embeds)

    def position(self, prompt: str, key_word: str = KEY_WORD) -> int:
        """Return the index of the key word among the prompt's tokens.

        Raises:
            ConfigError: the key word is not there exactly once, as one token.
        """
        word = self._tokenizers[0](key_word)["input_ids"][1:-1]
        places = (self.tokens(prompt)[0][0] == word[0]).nonzero().flatten().tolist() if len(word) == 1 else []
        if len(places) != 1:
            raise ConfigError(
                f"the key word '{key_word}' must be one token and stand once in the prompt '{prompt}': "
                f"{len(word)} tokens, found {len(places)} times"
            )
        return int(places[0])


def insert_identity(states: torch.Tensor, position: int, identity: torch.Tensor) -> torch.Tensor:
    """Return text states with identity tokens in place of one token, cut to the length they had. Differentiable.

    Args:
        states: [B or 1, L, C], of a prompt.
        position: index of the token that gives way.
        identity: [B, n, C], one token for each reference, n at least 1.

    Returns:
        [B, L, C] in the type of ``states``.
    """
    import torch

    if identity.ndim != 3 or identity.shape[1] < 1:
        raise ValueError(f"expected identity tokens [B, n, C] with n of 1 or more, got {tuple(identity.shape)}")
    count, length = identity.shape[0], states.shape[1]
    states = states.expand(count, -1, -1)
    parts = [states[:, :position], identity.to(states.dtype), states[:, position + 1 :]]
    return torch.cat(parts, dim=1)[:, :length]


def time_ids(height: int, width: int) -> torch.Tensor:
    """Return SDXL's six size conditions, float32 [1, 6]: original size, no crop, target size, each (height, width)."""
    import torch

    return torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32)
