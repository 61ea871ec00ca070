"""CvTs of Hugging Face transformers, with the settings of microsoft/cvt-13 and microsoft/cvt-21."""

import functools
import types
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(depths: tuple[int, ...], small_stem: bool) -> Any:
    from transformers import CvtConfig, CvtForImageClassification

    stem = {"patch_sizes": (3, 3, 3), "patch_stride": (2, 2, 2), "patch_padding": (1, 1, 1)} if small_stem else {}
    model = CvtForImageClassification(
        CvtConfig(depth=depths, num_labels=NUM_CLASSES, drop_path_rate=(0.0, 0.0, 0.0), **stem)
    )
    # A method, so that a copy of the module does not call this one.
    model.forward = types.MethodType(lambda self, x: CvtForImageClassification.forward(self, x).logits, model)
    return model


def _features(model: Any, x: Any) -> list[Any]:
    return list(model.cvt(x, output_hidden_states=True).hidden_states)


# Not of single images: for one, the gradient that PyTorch 2.14 gets on a CPU for a BatchNorm whose output is put behind
# a class token is not that of finite differences.
_LARGE = ((2, 224, 224, 3), (2, 90, 64, 3))
_SMALL = ((2, 38, 25, 3), (2, 32, 32, 3))
NETWORKS = {
    f"cvt_{13 if depths[-1] == 10 else 21}{'_small_stem' if small_stem else ''}": Reference(
        build=functools.partial(_build, depths, small_stem),
        layout="transformers",
        shapes=_SMALL if small_stem else _LARGE,
        features=_features,
        training=(8, 32, 32, 3) if small_stem and depths[-1] == 10 else None,
    )
    for depths in ((1, 2, 10), (1, 4, 16))
    for small_stem in (False, True)
}
