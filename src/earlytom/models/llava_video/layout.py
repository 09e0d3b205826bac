"""How LLaVA-Video pools the features of a frame, and where newline embeddings stand between them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from earlytom.errors import ModelError
from earlytom.types import FrameGrid

__all__ = ["VideoLayout"]

_POOL_MODES = ("average", "max", "bilinear")
_NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")


@dataclass(frozen=True, kw_only=True)
class VideoLayout:
    """The layout of a clip in the prompt.

    Attributes:
        pool_mode: ``"average"`` and ``"max"`` leave out what the stride does not fill; ``"bilinear"`` rounds up.
        stride: patches that become one token, along each side.
        newlines: where the newline embedding stands: ``"grid"`` after each row of each frame, ``"frame"`` after each
            frame, ``"one_token"`` at the end of the clip, ``"no_token"`` nowhere.

    Raises:
        ModelError: a value is not allowed.
    """

    pool_mode: str
    stride: int
    newlines: str

    def __post_init__(self) -> None:
        if self.pool_mode not in _POOL_MODES:
            raise ModelError(f"spatial_pool_mode must be one of {', '.join(_POOL_MODES)}, got {self.pool_mode!r}")
        if self.newlines not in _NEWLINE_POSITIONS:
            raise ModelError(f"newline_position must be one of {', '.join(_NEWLINE_POSITIONS)}, got {self.newlines!r}")
        if not isinstance(self.stride, int) or self.stride < 1:
            raise ModelError(f"spatial_pool_stride must be an integer of at least 1, got {self.stride!r}")

    @classmethod
    def of(cls, config: Any) -> VideoLayout:
        """The layout that a `LlavaVideoConfig` asks for."""
        return cls(
            pool_mode=config.spatial_pool_mode, stride=config.spatial_pool_stride, newlines=config.newline_position
        )

    def pooled(self, side: int) -> int:
        """Rows and columns of a frame of ``side`` x ``side`` patches after pooling. Raises `ModelError` for none."""
        pooled = math.ceil(side / self.stride) if self.pool_mode == "bilinear" else side // self.stride
        if pooled < 1:
            raise ModelError(
                f"spatial_pool_stride must be at most the {side} patches along a side of a frame, got {self.stride}"
            )
        return pooled

    def pool(self, features: Tensor, side: int) -> Tensor:
        """[F, side * side, D] features to [F, rows * columns, D], in raster order."""
        maps = features.unflatten(1, (side, side)).permute(0, 3, 1, 2).contiguous()
        if self.pool_mode == "average":
            maps = nn.functional.avg_pool2d(maps, self.stride)
        elif self.pool_mode == "max":
            maps = nn.functional.max_pool2d(maps, self.stride)
        else:
            maps = nn.functional.interpolate(maps, size=[self.pooled(side)] * 2, mode="bilinear")
        return maps.flatten(2).transpose(1, 2)

    def length(self, grid: FrameGrid) -> int:
        """Positions that an uncompressed clip takes in the prompt, newlines included."""
        newlines = {"grid": grid.frames * grid.rows, "frame": grid.frames, "one_token": 1, "no_token": 0}
        return grid.tokens + newlines[self.newlines]

    @property
    def ends_groups(self) -> bool:
        """Whether newlines stand after rows or frames: between which tokens is then decided by places on the host."""
        return self.newlines in ("grid", "frame")

    def sequence(self, features: Tensor, places: Tensor, grid: FrameGrid, newline: Tensor) -> Tensor:
        """Put newlines between the tokens of a clip that are left.

        With newlines in ``"grid"`` the tokens go into the order of their places, and one newline stands after the last
        token of each row (of each frame) that has any; ``"frame"`` does the same with whole frames.

        Args:
            features: [K, C] tokens.
            places: [K] int64, their places in the uncompressed clip.
            grid: the uncompressed clip.
            newline: [C] embedding.

        Returns:
            [S, C] tokens and newlines.
        """
        if self.newlines == "no_token":
            return features
        rows = torch.cat([features, newline[None].to(features)])
        if self.newlines == "one_token":
            return rows
        index = _with_group_ends(places.cpu(), grid.columns if self.newlines == "grid" else grid.tokens_per_frame)
        return rows.index_select(0, index.to(rows.device, non_blocking=True))


def _with_group_ends(places: Tensor, size: int) -> Tensor:
    """The order of K tokens at [K] places, with K (the newline's row) after each group of ``size`` places; on the host.

    Groups without a token get none.
    """
    order = torch.argsort(places, stable=True)
    group = places[order] // size
    last = torch.ones_like(group, dtype=torch.bool)
    last[:-1] = group[1:] != group[:-1]
    taken = 1 + last.long()
    index = torch.full((int(taken.sum()),), len(places))
    index[taken.cumsum(0) - taken] = order
    return index
