"""Vision Transformers of timm."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(size: str, patch: int) -> Any:
    import timm

    side = 224 if patch == 16 else 32
    return timm.create_model(f"vit_{size}_patch16_224", num_classes=NUM_CLASSES, patch_size=patch, img_size=side)


def _features(model: Any, x: Any) -> list[Any]:
    return model.forward_intermediates(x, indices=[2, 5, 8, 11], intermediates_only=True)


NETWORKS = {
    f"vit_{size}_patch{patch}": Reference(
        build=functools.partial(_build, size, patch),
        layout="timm",
        shapes=((1, 224, 224, 3) if patch == 16 else (1, 32, 32, 3),),  # a table of positions fits one size
        features=_features,
        recorded=size == "tiny",
        records_gradient=(size, patch) == ("tiny", 4),
    )
    for size in ("tiny", "small", "base")
    for patch in (16, 4)
}
