"""Compact Transformers of vit-pytorch, whose tokenizer and encoder are those of SHI-Labs/Compact-Transformers."""

import functools
from typing import Any

from torch_networks.reference import NUM_CLASSES, Reference

# Channels, blocks, heads and MLP of the authors' functions `cct_7` and so on.
_SIZES = {6: (256, 6, 4, 2), 7: (256, 7, 4, 2), 14: (384, 14, 6, 3)}


def _build(size: int, convolutions: int, kernel: int, sequence_pool: bool, side: int, sine: bool = False) -> Any:
    import torch
    from vit_pytorch.cct import Tokenizer, TransformerClassifier

    dim, depth, heads, expansion = _SIZES[size]
    convolutional = convolutions > 0
    model = torch.nn.Module()
    model.tokenizer = Tokenizer(
        kernel_size=kernel,
        stride=max(1, kernel // 2 - 1) if convolutional else kernel,
        padding=kernel // 2 if convolutional else 0,
        n_conv_layers=max(1, convolutions),
        n_output_channels=dim,
        activation=torch.nn.ReLU if convolutional else None,
        max_pool=convolutional,
        conv_bias=not convolutional,
    )
    classifier = TransformerClassifier(
        seq_pool=sequence_pool,
        embedding_dim=dim,
        num_layers=depth,
        num_heads=heads,
        mlp_ratio=expansion,
        num_classes=NUM_CLASSES,
        positional_embedding="sine" if sine else "learnable",
        sequence_length=model.tokenizer.sequence_length(height=side, width=side),
    )
    if sine:  # no weight, but what the paper says
        table = classifier.positional_emb.detach()
        del classifier.positional_emb
        classifier.register_buffer("positional_emb", table, persistent=False)
    model.classifier = classifier
    model.forward = lambda x: classifier(model.tokenizer(x))
    return model


def _features(model: Any, x: Any) -> list[Any]:
    """What the last block of each of four equal parts returns, without the class token."""
    import torch

    classifier, depth, maps = model.classifier, len(model.classifier.blocks), []
    height, width = model.tokenizer.conv_layers(x).shape[2:]
    x = model.tokenizer(x)
    if not classifier.seq_pool:
        x = torch.cat([classifier.class_emb.expand(len(x), -1, -1), x], 1)
    x = x + classifier.positional_emb
    for number, block in enumerate(classifier.blocks, start=1):
        x = block(x)
        if number in [depth * part // 4 for part in (1, 2, 3, 4)]:
            maps.append(x[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)))
    return maps


_ARGUMENTS = {
    "vit_lite_6": (6, 0, 4, False, 32),
    "vit_lite_7": (7, 0, 4, False, 32),
    "cvt_7_4": (7, 0, 4, True, 32),
    "cct_6_3x1": (6, 1, 3, True, 32),
    "cct_7_3x1": (7, 1, 3, True, 32),
    "cct_7_3x2": (7, 2, 3, True, 32),
    "cct_7_7x2": (7, 2, 7, True, 224),
    "cct_14_7x2": (14, 2, 7, True, 224),
}
NETWORKS = {
    name: Reference(
        build=functools.partial(_build, *arguments),
        layout="SHI-Labs",
        # A table of positions fits one size. Of a single image of 32 pixels some value is so near to the kink of a ReLU
        # that rounding decides its sign, which changes the gradient by 6e-4.
        shapes=((2, arguments[-1], arguments[-1], 3),),
        features=_features,
        recorded=name in ("vit_lite_6", "cct_7_3x2"),
        records_gradient=name == "cct_7_3x2",
    )
    for name, arguments in _ARGUMENTS.items()
}
