"""ConvNeXt in PyTorch, with the architecture and the parameter names of facebookresearch/ConvNeXt.

Liu et al. 2022, "A ConvNet for the 2020s", arXiv 2201.03545. It is written in the form that eager PyTorch runs
fastest: in channels-last layout, the permutations of a block are views, and a LayerNorm over the channels is PyTorch's
own kernel.
"""

# pyright: reportMissingImports=false

import torch
from torch import nn
from torch.nn import functional

from benchmarks.comparison.case import Case


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B,C,H,W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Depthwise convolution, LayerNorm, expanding layer, GELU, projecting layer, layer scale, residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,C,H,W] -> [B,C,H,W]."""
        branch = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # [B,H,W,C]
        branch = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(branch)))
        return x + branch.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Stem, four stages, average pool, LayerNorm, linear head."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        dims, (size, stride, padding) = case.dims, case.window
        stem = nn.Sequential(nn.Conv2d(3, dims[0], size, stride, padding), ChannelNorm(dims[0]))
        downsamples = [
            nn.Sequential(ChannelNorm(inputs), nn.Conv2d(inputs, outputs, 2, 2))
            for inputs, outputs in zip(dims, dims[1:], strict=False)
        ]
        self.downsample_layers = nn.ModuleList([stem, *downsamples])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim) for _ in range(depth))) for depth, dim in zip(case.depths, dims, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], case.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B,3,H,W] -> logits [B,K]."""
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean((2, 3))))
