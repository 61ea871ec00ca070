"""What PyTorch's segmentation heads answer with random weights, recorded for tests that run without torch.

``python tests/torch_segmentation_heads.py`` compares UPerNet's head, its auxiliary head and the feature pyramid with
definitions in plain PyTorch, written from mmsegmentation's, and updates the record. It needs torch.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from torch_reference import draw_images, draw_weights, pick

from convnext_jax.layers.feature_pyramid import FeaturePyramidHead
from convnext_jax.layers.parameters import Initializer
from convnext_jax.layers.upernet import AuxiliaryPixelHead, UPerNetHead
from convnext_jax.models.parameters import batch_stats_of, flat, merge_model, nested, split_model
from convnext_jax.precision import Precision

RECORD = Path(__file__).with_name("torch_networks") / "records" / "segmentation_heads.json"
CHANNELS, WIDTH, CLASSES = (8, 12, 16, 20), 16, 5
SIZES = ((13, 16), (7, 8), (4, 4), (2, 2))  # of the maps; no size is a multiple of the next
# Where ours keeps what mmsegmentation has elsewhere.
_NAMES = (
    (r"^pooling/pooled/(\d)/", r"psp_modules/\1/1/"),
    (r"^pooling/", ""),
    (r"^lateral/", "lateral_convs/"),
    (r"^smooth/", "fpn_convs/"),
    (r"^merge/", "fpn_bottleneck/"),
    (r"^conv/conv/", "convs/0/conv/"),
    (r"^conv/norm/", "convs/0/bn/"),
    (r"^head/", "conv_seg/"),
    (r"/norm/", "/bn/"),
)
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}


def our_heads() -> dict[str, nnx.Module]:
    """Our heads, with weights drawn by the names that they have in PyTorch."""
    init, precision = Initializer(np.random.SeedSequence(0)), Precision()
    heads = {
        "upernet": UPerNetHead(init, CHANNELS, CLASSES, channels=WIDTH, precision=precision),
        "fpn": FeaturePyramidHead(init, CHANNELS, CLASSES, channels=WIDTH, precision=precision),
        "auxiliary": AuxiliaryPixelHead(init, CHANNELS[2], CLASSES, precision=precision),
    }
    return {name: _with_weights(name, head) for name, head in heads.items()}


def _with_weights(name: str, head: nnx.Module) -> nnx.Module:
    definition, params, batch_stats = split_model(head)
    trees = ({path: torch_name(name, path) for path in flat(tree)} for tree in (params, batch_stats))
    names = [*trees]
    leaves = flat(params) | flat(batch_stats)
    shapes = {torch: to_torch(leaves[path]).shape for tree in names for path, torch in tree.items()}
    drawn = draw_weights(shapes)
    found = ({path: from_torch(drawn[torch], leaves[path].ndim) for path, torch in tree.items()} for tree in names)
    return merge_model(definition, *(nested(tree) for tree in found))


def torch_name(head: str, path: str) -> str:
    """The name in mmsegmentation, under the name of the head."""
    place, _, leaf = path.rpartition("/")
    place += "/"
    for pattern, replacement in _NAMES:
        place = re.sub(pattern, replacement, place)
    return f"{head}/{place}{_LEAVES[leaf]}".replace("/", ".")


def to_torch(array: Any) -> np.ndarray:
    """[k,k,C,D] -> [D,C,k,k], and [C,D], a linear layer for each pixel, -> [D,C,1,1]."""
    array = np.asarray(array)
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T[:, :, None, None] if array.ndim == 2 else array


def from_torch(array: np.ndarray, ndim: int) -> np.ndarray:
    """The inverse of `to_torch`."""
    return array.transpose(2, 3, 1, 0) if ndim == 4 else array[:, :, 0, 0].T if ndim == 2 else array


def draw_maps() -> list[np.ndarray]:
    """The maps of four stages, float32 [2,H,W,C]."""
    return [
        np.concatenate([draw_images((2, height, width, channels - index))[..., :1] for index in range(channels)], -1)
        for (height, width), channels in zip(SIZES, CHANNELS, strict=True)
    ]


def our_answers(heads: Mapping[str, nnx.Module]) -> dict[str, np.ndarray]:
    """The logits of each head outside of training, and of the auxiliary one in training."""
    maps = [jnp.asarray(x) for x in draw_maps()]
    key = jax.random.key(0)
    answers: dict[str, Any] = {
        "upernet": heads["upernet"](maps),  # pyright: ignore[reportCallIssue]
        "fpn": heads["fpn"](maps),  # pyright: ignore[reportCallIssue]
        "auxiliary, training": heads["auxiliary"](maps[2], key=key),  # pyright: ignore[reportCallIssue]
    }
    answers["upernet, training"] = heads["upernet"](maps, key=key)  # pyright: ignore[reportCallIssue]
    for path, value in flat(batch_stats_of(heads["upernet"])).items():
        answers[f"upernet, {path}"] = value
    return {name: np.asarray(value) for name, value in answers.items()}


def _torch_answers(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    import torch
    from torch import nn
    from torch.nn import functional

    def conv_module(inputs: int, outputs: int, size: int) -> Any:
        module = nn.Module()
        module.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        module.bn = nn.BatchNorm2d(outputs)
        module.forward = lambda x: functional.relu(module.bn(module.conv(x)))
        return module

    def resize(x: Any, like: Any) -> Any:
        return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)

    class UPerHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            scales = (1, 2, 3, 6)
            self.psp_modules = nn.ModuleList(
                nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_module(CHANNELS[-1], WIDTH, 1)) for scale in scales
            )
            self.bottleneck = conv_module(CHANNELS[-1] + len(scales) * WIDTH, WIDTH, 3)
            self.lateral_convs = nn.ModuleList(conv_module(channels, WIDTH, 1) for channels in CHANNELS[:-1])
            self.fpn_convs = nn.ModuleList(conv_module(WIDTH, WIDTH, 3) for _ in CHANNELS[:-1])
            self.fpn_bottleneck = conv_module(len(CHANNELS) * WIDTH, WIDTH, 3)
            self.conv_seg = nn.Conv2d(WIDTH, CLASSES, 1)

        def forward(self, maps: Any) -> Any:
            pooled = [maps[-1], *(resize(layer(maps[-1]), maps[-1]) for layer in self.psp_modules)]
            laterals = [layer(x) for layer, x in zip(self.lateral_convs, maps, strict=False)]
            laterals.append(self.bottleneck(torch.cat(pooled, 1)))
            for index in range(len(laterals) - 1, 0, -1):
                laterals[index - 1] = laterals[index - 1] + resize(laterals[index], laterals[index - 1])
            outs = [layer(x) for layer, x in zip(self.fpn_convs, laterals, strict=False)] + [laterals[-1]]
            outs = [outs[0], *(resize(out, outs[0]) for out in outs[1:])]
            return self.conv_seg(self.fpn_bottleneck(torch.cat(outs, 1)))

    class FPNHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lateral_convs = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in CHANNELS)
            self.fpn_convs = nn.ModuleList(conv_module(WIDTH, WIDTH, 3) for _ in CHANNELS)
            self.fpn_bottleneck = conv_module(WIDTH, WIDTH, 3)
            self.conv_seg = nn.Conv2d(WIDTH, CLASSES, 1)

        def forward(self, maps: Any) -> Any:
            levels = [layer(x) for layer, x in zip(self.lateral_convs, maps, strict=True)]
            for index in range(len(levels) - 1, 0, -1):
                levels[index - 1] = levels[index - 1] + resize(levels[index], levels[index - 1])
            outs = [layer(x) for layer, x in zip(self.fpn_convs, levels, strict=True)]
            return self.conv_seg(self.fpn_bottleneck(sum(resize(out, outs[0]) for out in outs)))

    class FCNHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList([conv_module(CHANNELS[2], 256, 3)])
            self.conv_seg = nn.Conv2d(256, CLASSES, 1)

        def forward(self, x: Any) -> Any:
            return self.conv_seg(self.convs[0](x))

    modules = {"upernet": UPerHead(), "fpn": FPNHead(), "auxiliary": FCNHead()}
    for name, module in modules.items():
        own = {
            key.removeprefix(f"{name}."): torch.from_numpy(a.copy()) for key, a in state.items() if key.startswith(name)
        }
        missing, unexpected = module.load_state_dict(own, strict=False)
        assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing), (missing, unexpected)
        module.eval()
    maps = [torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in draw_maps()]
    with torch.no_grad():
        found = {name: modules[name](maps) for name in ("upernet", "fpn")}
        found["auxiliary, training"] = modules["auxiliary"].train()(maps[2])
        found["upernet, training"] = modules["upernet"].train()(maps)
    answers = {name: value.numpy().transpose(0, 2, 3, 1) for name, value in found.items()}
    after = modules["upernet"].state_dict()
    for path in flat(batch_stats_of(our_heads()["upernet"])):
        answers[f"upernet, {path}"] = after[torch_name("upernet", path).removeprefix("upernet.")].numpy()
    return answers


def main() -> None:
    """Compares and records."""
    heads, state = our_heads(), {}
    for name, head in heads.items():
        _, *trees = split_model(head)
        for tree in trees:
            state |= {torch_name(name, path): to_torch(leaf) for path, leaf in flat(tree).items()}
    theirs, ours = _torch_answers(state), our_answers(heads)
    assert theirs.keys() == ours.keys()
    for name, array in theirs.items():
        error = float(np.abs(ours[name] - array).max() / np.abs(array).max())
        if "/" not in name:
            print(f"{name}: largest relative difference {error:.1e}")
        assert error < 2e-5, (name, error)
    sample = {name: {"values": pick(a).tolist(), "scale": float(np.abs(a).max())} for name, a in theirs.items()}
    RECORD.write_text(json.dumps(sample, indent=1) + "\n")


if __name__ == "__main__":
    main()
