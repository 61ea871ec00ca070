"""WaveMix-Lites of the authors' package."""

import functools
import sys
import types
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference


def _build(dim: int, depth: int, stem: str) -> Any:
    import numpy as np

    # The package imports a name that it does not use from a module that NumPy 2 no longer has.
    gone = types.ModuleType("numpy.lib.function_base")
    gone.hamming = np.hamming
    sys.modules.setdefault("numpy.lib.function_base", gone)
    import wavemix
    from wavemix.classification import WaveMix

    transform = wavemix.DWTForward(J=1, mode="zero", wave="db1")
    wavemix.xf1 = lambda x: transform.to(x.dtype)(x)  # theirs stays float32 in a network of float64
    stems = {"conv3x3_s1": {"initial_conv": "strided", "stride": 1}, "patch4": {"initial_conv": "pachify"}}
    sizes = {"depth": depth, "ff_channel": dim, "final_dim": dim}
    return WaveMix(num_classes=NUM_CLASSES, level=1, dropout=0.0, **sizes, **stems[stem])


def _features(model: Any, x: Any) -> list[Any]:
    x, depth, maps = model.conv(x), len(model.layers), []
    for number, layer in enumerate(model.layers, start=1):
        x = layer(x) + x
        if number in [depth * part // 4 for part in (1, 2, 3, 4)]:
            maps.append(x)
    return maps


NETWORKS = {
    f"wavemix_lite_{dim}_{depth}": Reference(
        build=functools.partial(_build, dim, depth, "patch4" if dim == 192 else "conv3x3_s1"),
        layout="wavemix",
        shapes=((1, 224, 224, 3), (1, 64, 88, 3)) if dim == 192 else ((1, 24, 38, 3), (1, 32, 32, 3)),
        features=_features,
        training={64: (8, 32, 32, 3), 192: (8, 64, 64, 3)}.get(dim),
        recorded=dim == 64,
        records_gradient=dim == 64,
    )
    for dim, depth in ((64, 6), (144, 7), (256, 7), (256, 12), (192, 16))
}
