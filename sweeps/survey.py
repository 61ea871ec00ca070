"""One epoch of CIFAR-100 with a network of each family, by the recipe of configs/papers/survey.py.

    python -m convnext_jax.tools.sweep sweeps/survey.py --workdir runs/survey

Nine tenths of the training images are trained on and the other tenth evaluated. The quickest come first, about. One
epoch says whether a network trains, not which is best: docs/models.md has the results.
"""

BASE = "configs/papers/survey.py"

NETWORKS = (
    "lenet5",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_multiscale",
    "convnext_swin_mlp",
    "googlenet",
    "convnext_tiny",
    "convnextv2_tiny",
    "convnext_isotropic_small",
    "road_tiny",
    "swin_3stage_patch4_window4",
    "densenet121",
    "resnet50",
    "cvt_13",
    "resnext50_32x4d",
    "efficientnet_b0_small_stem",
    "resnet20",
    "vit_lite_7",
    "alexnet_small_stem",
    "vit_tiny_patch4",
    "cct_7_3x2",
    "mobilenet_v2_small_stem",
    "wavemix_lite_64_6",
    "vgg16_bn_small",
    "replknet31b",
    "preact_resnet164",
    "swin_tiny_patch2_window4",
    "resnet18_small_stem",
    "densenet100_k12",
)
POINTS = [
    {
        "model.name": name,
        "data.validation_fraction": 0.1,
        "optim.warmup_epochs": 0.2,
        "run.epochs": 1,
        "run.eval_every_epochs": 1,
    }
    for name in NETWORKS
]
