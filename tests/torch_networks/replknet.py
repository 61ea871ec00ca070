"""RepLKNet written out in PyTorch, with the names of github.com/DingXiaoH/RepLKNet-pytorch."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(kernels: tuple[int, ...], strides: tuple[int, int]) -> Any:
    from torch import nn

    depths, dims = (2, 2, 18, 2), (128, 256, 512, 1024)

    def conv_bn(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1, relu: bool = False) -> Any:
        layers = nn.Sequential()
        layers.add_module("conv", nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False))
        layers.add_module("bn", nn.BatchNorm2d(outputs))
        if relu:
            layers.add_module("nonlinear", nn.ReLU())
        return layers

    class LargeKernel(nn.Module):
        def __init__(self, dim: int, size: int) -> None:
            super().__init__()
            self.lkb_origin = conv_bn(dim, dim, size, groups=dim)
            self.small_conv = conv_bn(dim, dim, 5, groups=dim)

        def forward(self, x: Any) -> Any:
            return self.lkb_origin(x) + self.small_conv(x)

    class Spatial(nn.Module):
        def __init__(self, dim: int, size: int) -> None:
            super().__init__()
            self.prelkb_bn = nn.BatchNorm2d(dim)
            self.pw1 = conv_bn(dim, dim, 1, relu=True)
            self.large_kernel = LargeKernel(dim, size)
            self.pw2 = conv_bn(dim, dim, 1)

        def forward(self, x: Any) -> Any:
            return x + self.pw2(self.large_kernel(self.pw1(self.prelkb_bn(x))).relu())

    class FeedForward(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.preffn_bn = nn.BatchNorm2d(dim)
            self.pw1, self.pw2 = conv_bn(dim, 4 * dim, 1), conv_bn(4 * dim, dim, 1)

        def forward(self, x: Any) -> Any:
            return x + self.pw2(nn.functional.gelu(self.pw1(self.preffn_bn(x))))

    class StageOfBlocks(nn.Module):
        def __init__(self, dim: int, depth: int, size: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(
                *(each for _ in range(depth) for each in (Spatial(dim, size), FeedForward(dim)))
            )

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            first = dims[0]
            self.stem = nn.Sequential(
                conv_bn(3, first, 3, strides[0], relu=True),
                conv_bn(first, first, 3, groups=first, relu=True),
                conv_bn(first, first, 1, relu=True),
                conv_bn(first, first, 3, strides[1], groups=first, relu=True),
            )
            self.stages = nn.ModuleList(map(StageOfBlocks, dims, depths, kernels))
            self.transitions = nn.ModuleList(
                nn.Sequential(conv_bn(i, o, 1, relu=True), conv_bn(o, o, 3, 2, groups=o, relu=True))
                for i, o in zip(dims, dims[1:], strict=False)
            )
            self.norm, self.head = nn.BatchNorm2d(dims[-1]), nn.Linear(dims[-1], NUM_CLASSES)

        def maps(self, x: Any) -> list[Any]:
            x, maps = self.stem(x), []
            for index, stage in enumerate(self.stages):
                x = stage.blocks(self.transitions[index - 1](x) if index else x)
                maps.append(x)
            return maps

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.maps(x)[-1]).mean((2, 3)))

    return Network()


NETWORKS = {
    "replknet31b": Reference(
        build=functools.partial(_build, (31, 29, 27, 13), (2, 2)),
        layout="DingXiaoH",
        shapes=((1, 224, 224, 3), (1, 64, 96, 3)),
        features=lambda model, x: model.maps(x),
    ),
    "replknet17b_small_stem": Reference(
        build=functools.partial(_build, (17, 17, 15, 7), (1, 1)),
        layout="DingXiaoH",
        shapes=((1, 32, 32, 3),),
        features=lambda model, x: model.maps(x),
        training=(4, 16, 16, 3),
    ),
}
