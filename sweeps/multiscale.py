"""The ablations of the multi-scale paper at a small budget: its block, its LSTM and its stem, and its other blocks.

    python -m convnext_jax.tools.sweep sweeps/multiscale.py --workdir runs/multiscale

The network is that of configs/cifar100_cpu.py with ConvNeXt's stem of 4x4 patches. It trains for four epochs of nine
tenths of CIFAR-100's training images and is evaluated on the other tenth, with three seeds. The letters are those of
configs/papers/multiscale.py. docs/papers.md has the results of the first two.
"""

BASE = "configs/cifar100_cpu.py"

SHORT = {
    "data.validation_fraction": 0.1,
    "model.stem": "patch4",
    "run.image_sizes": (),
    "run.epochs": 4,
    "run.eval_every_epochs": 4,
    "run.seeds": 3,
}
BLOCK, LSTM, STEM = {"model.block": "multiscale"}, {"model.bilstm2d": True}, {"model.stem": "conv7x7_patch2"}
OURS = SHORT | BLOCK | LSTM | STEM
POINTS = [
    SHORT,
    OURS,
    SHORT | BLOCK,  # a
    SHORT | LSTM,  # b
    SHORT | STEM,  # c
    SHORT | STEM | BLOCK,  # d
    SHORT | BLOCK | LSTM,  # e
    SHORT | STEM | LSTM,  # f
    OURS | {"model.block": "multiscale_a"},
    OURS | {"model.block": "multiscale_b"},
    OURS | {"model.block": "multiscale_c"},
]
