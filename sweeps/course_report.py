"""The claims of a course report about ConvNeXt's parts, at a small budget: norm, convolution, Swin-MLP, stem.

    python -m convnext_jax.tools.sweep sweeps/course_report.py --workdir runs/course_report

The network is that of configs/cifar100_cpu.py on images of 24 pixels. It trains for four epochs of nine tenths of
CIFAR-100's training images and is evaluated on the other tenth, with three seeds. Swin-MLP's blocks are in the stages
with the largest maps, 12 and 6 pixels wide, since a window has 7. docs/papers.md has the results of the first four.
"""

BASE = "configs/cifar100_cpu.py"

SHORT = {
    "data.validation_fraction": 0.1,
    "run.image_sizes": (24,),
    "run.epochs": 4,
    "run.eval_every_epochs": 4,
    "run.seeds": 3,
}
POINTS = [
    SHORT,
    SHORT | {"model.norm": "batch"},
    SHORT | {"model.kernel_size": 3},
    SHORT | {"model.kernel_size": 3, "model.convolution": "dense"},
    SHORT | {"model.swin_mlp_stages": (1, 2)},
    SHORT | {"model.stem": "patch2"},
]
