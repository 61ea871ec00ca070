"""The table of named networks: a name, and what its network is made of."""

import dataclasses

from convnext_jax.models.airbench import AirbenchArchitecture
from convnext_jax.models.alexnet import AlexNetArchitecture
from convnext_jax.models.compact_transformer import CompactTransformerArchitecture
from convnext_jax.models.convnext import ConvNeXtArchitecture
from convnext_jax.models.cvt import CvTArchitecture
from convnext_jax.models.densenet import DenseNetArchitecture
from convnext_jax.models.efficientnet import EfficientNetArchitecture
from convnext_jax.models.googlenet import GoogLeNetArchitecture
from convnext_jax.models.interface import Architecture
from convnext_jax.models.lenet import LeNetArchitecture
from convnext_jax.models.mobilenet_v2 import MobileNetV2Architecture
from convnext_jax.models.preact_resnet import PreActResNetArchitecture
from convnext_jax.models.replknet import RepLKNetArchitecture
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.road import RoadArchitecture
from convnext_jax.models.swin import SwinArchitecture
from convnext_jax.models.vgg import VGGArchitecture
from convnext_jax.models.vit import ViTArchitecture
from convnext_jax.models.wavemix import WaveMixArchitecture


def _v1(depths: tuple[int, ...], first: int) -> ConvNeXtArchitecture:
    return ConvNeXtArchitecture(depths, (first, 2 * first, 4 * first, 8 * first))


def _v2(depths: tuple[int, ...], first: int) -> ConvNeXtArchitecture:
    return dataclasses.replace(_v1(depths, first), grn=True, layer_scale=0.0)


def _isotropic(depths: tuple[int, ...], dim: int, layer_scale: float = 0.0) -> ConvNeXtArchitecture:
    return ConvNeXtArchitecture(depths, (dim,) * 4, stem="patch16", isotropic=True, layer_scale=layer_scale)


def _resnets(*, small_stem: bool) -> dict[str, Architecture]:
    suffix, stem = ("_small_stem", "conv3x3_s1") if small_stem else ("", "conv7x7_s2_pool")
    rows = {"18": ((2, 2, 2, 2), "basic"), "34": ((3, 4, 6, 3), "basic")}
    rows |= {"50": ((3, 4, 6, 3), "bottleneck"), "101": ((3, 4, 23, 3), "bottleneck")}
    rows |= {"152": ((3, 8, 36, 3), "bottleneck"), "200": ((3, 24, 36, 3), "bottleneck")}
    return {f"resnet{n}{suffix}": ResNetArchitecture(depths, block, stem=stem) for n, (depths, block) in rows.items()}


def _small_resnet(depth: int) -> ResNetArchitecture:
    blocks = (depth - 2) // 6  # of two layers, in each of three stages
    return ResNetArchitecture((blocks,) * 3, "basic", width=16, stem="conv3x3_s1", shortcut="pad")


def _resnexts(*, small_stem: bool) -> dict[str, Architecture]:
    suffix, stem = ("_small_stem", "conv3x3_s1") if small_stem else ("", "conv7x7_s2_pool")
    rows = {"50_32x4d": ((3, 4, 6, 3), 32, 4), "101_32x8d": ((3, 4, 23, 3), 32, 8)}
    return {
        f"resnext{n}{suffix}": ResNetArchitecture(depths, stem=stem, groups=groups, width_per_group=width)
        for n, (depths, groups, width) in rows.items()
    }


def _efficientnets() -> dict[str, Architecture]:
    # Width and depth over those of B0. The resolutions that go with them are 224, 240, 260, 300, 380, 456, 528 and 600
    # pixels, the rates of the dropout 0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5 and 0.5.
    rows = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))
    found: dict[str, Architecture] = {}
    for number, (width, depth) in enumerate(rows):
        momentum, epsilon = (0.1, 1e-5) if number < 5 else (0.01, 1e-3)  # torchvision's
        found[f"efficientnet_b{number}"] = EfficientNetArchitecture(width, depth, momentum=momentum, epsilon=epsilon)
    return found


def _compact_transformers() -> dict[str, Architecture]:
    token = CompactTransformerArchitecture(convolutions=0, kernel_size=4, pool="class_token")
    return {
        "vit_lite_6": dataclasses.replace(token, depth=6),
        "vit_lite_7": token,
        "cvt_7_4": dataclasses.replace(token, pool="sequence"),
        "cct_6_3x1": CompactTransformerArchitecture(depth=6),
        "cct_7_3x1": CompactTransformerArchitecture(),
        "cct_7_3x2": CompactTransformerArchitecture(convolutions=2),
        "cct_7_7x2": CompactTransformerArchitecture(convolutions=2, kernel_size=7, image_size=224),
        "cct_14_7x2": CompactTransformerArchitecture(
            384, 14, 6, expansion=3, convolutions=2, kernel_size=7, image_size=224
        ),
    }


MODELS: dict[str, Architecture] = {
    # Atto to nano: the widths and depths of Woo et al. 2023, appendix A.1, with the blocks of 2022, as in timm.
    "convnext_atto": _v1((2, 2, 6, 2), 40),
    "convnext_femto": _v1((2, 2, 6, 2), 48),
    "convnext_pico": _v1((2, 2, 6, 2), 64),
    "convnext_nano": _v1((2, 2, 8, 2), 80),
    # Liu et al. 2022 (arXiv 2201.03545), section 3.
    "convnext_tiny": _v1((3, 3, 9, 3), 96),
    "convnext_small": _v1((3, 3, 27, 3), 96),
    "convnext_base": _v1((3, 3, 27, 3), 128),
    "convnext_large": _v1((3, 3, 27, 3), 192),
    "convnext_xlarge": _v1((3, 3, 27, 3), 256),
    # Woo et al. 2023 (arXiv 2301.00808), appendix A.1.
    "convnextv2_atto": _v2((2, 2, 6, 2), 40),
    "convnextv2_femto": _v2((2, 2, 6, 2), 48),
    "convnextv2_pico": _v2((2, 2, 6, 2), 64),
    "convnextv2_nano": _v2((2, 2, 8, 2), 80),
    "convnextv2_tiny": _v2((3, 3, 9, 3), 96),
    "convnextv2_base": _v2((3, 3, 27, 3), 128),
    "convnextv2_large": _v2((3, 3, 27, 3), 192),
    "convnextv2_huge": _v2((3, 3, 27, 3), 352),
    # Liu et al. 2022, section 3.3: 18, 18 and 36 blocks, here in four parts as equal as possible, so that `features`
    # has four maps. Only the large one was trained with layer scale.
    "convnext_isotropic_small": _isotropic((4, 5, 4, 5), 384),
    "convnext_isotropic_base": _isotropic((4, 5, 4, 5), 768),
    "convnext_isotropic_large": _isotropic((9, 9, 9, 9), 1024, layer_scale=1e-6),
    # Yang, Wang, Wei 2024 (Computer Science 51(6A) 230500196), "our ConvNeXt-T". Without its block, stem or LSTM it is
    # the paper's ablations.
    "convnext_multiscale": ConvNeXtArchitecture(
        (3, 3, 9, 3), (64, 128, 320, 512), stem="conv7x7_patch2", block="multiscale", bilstm2d=True
    ),
    # A course report's "improved" model, of which one line is known: "a swin-mlp module tried". Where it was tried is
    # this project's reading: in the last two stages, whose maps a window covers.
    "convnext_swin_mlp": dataclasses.replace(_v1((3, 3, 9, 3), 96), swin_mlp_stages=(3, 4)),
    # He et al. 2016 (arXiv 1512.03385), table 1, with the 200 layers of He et al. 2016 (arXiv 1603.05027), table 5, and
    # the same with a stem for small images.
    **_resnets(small_stem=False),
    **_resnets(small_stem=True),
    # He et al. 2016, section 4.2, for 32 px.
    "resnet20": _small_resnet(20),
    "resnet56": _small_resnet(56),
    "resnet110": _small_resnet(110),
    # He et al. 2016 (arXiv 1603.05027), table 4, for 32 px.
    "preact_resnet164": PreActResNetArchitecture((18, 18, 18)),
    "preact_resnet1001": PreActResNetArchitecture((111, 111, 111)),
    # Xie et al. 2017 (arXiv 1611.05431), table 1 and, for 32 px, section 5.3.
    **_resnexts(small_stem=False),
    **_resnexts(small_stem=True),
    "resnext29_8x64d": ResNetArchitecture((3, 3, 3), stem="conv3x3_s1", groups=8),
    # Sandler et al. 2018 (arXiv 1801.04381), and for 32 px the strides of github.com/kuangliu/pytorch-cifar.
    "mobilenet_v2": MobileNetV2Architecture(),
    "mobilenet_v2_small_stem": MobileNetV2Architecture(strides=(1, 1, 2, 2, 2)),
    # Tan and Le 2019 (arXiv 1905.11946), and for 32 px the strides of github.com/kuangliu/pytorch-cifar.
    **_efficientnets(),
    "efficientnet_b0_small_stem": EfficientNetArchitecture(strides=(1, 2, 2, 2, 2)),
    # Ding et al. 2022 (arXiv 2203.06717), table 5; and for 32 px, this project's: windows that cover the maps as far as
    # those of 31, 29, 27 and 13 pixels do at 224 px.
    "replknet31b": RepLKNetArchitecture(),
    "replknet17b_small_stem": RepLKNetArchitecture((17, 17, 15, 7), stem="stride1"),
    # Liu et al. 2022, figure 2: the first steps of the two roads, whose fields are changed on the way
    # (`convnext_jax.models.road_steps`).
    "road_tiny": RoadArchitecture((3, 4, 6, 3)),
    "road_base": RoadArchitecture((3, 24, 36, 3)),
    # Touvron et al. 2021 (arXiv 2012.12877), table 1, for 224 px, and the same with patches for 32 px.
    "vit_tiny_patch16": ViTArchitecture(192, 12, 3),
    "vit_small_patch16": ViTArchitecture(384, 12, 6),
    "vit_base_patch16": ViTArchitecture(768, 12, 12),
    "vit_tiny_patch4": ViTArchitecture(192, 12, 3, patch_size=4, image_size=32),
    "vit_small_patch4": ViTArchitecture(384, 12, 6, patch_size=4, image_size=32),
    "vit_base_patch4": ViTArchitecture(768, 12, 12, patch_size=4, image_size=32),
    # LeCun et al. 1998, for 32 px.
    "lenet5": LeNetArchitecture(),
    # Jordan 2024 (arXiv 2404.00498), with the sizes of github.com/KellerJordan/cifar10-airbench, for 32 px.
    "airbench94": AirbenchArchitecture(),
    "airbench95": AirbenchArchitecture((128, 384, 384)),
    "airbench96": AirbenchArchitecture((128, 512, 512), depth=3, momentum=0.1),
    # Krizhevsky 2014 (arXiv 1404.5997), as in torchvision, and the widths of Krizhevsky et al. 2012, table 2. For small
    # images the first convolution is 3x3 and the classifier takes the 3x3 map that 32 px leave, or the mean to it.
    "alexnet": AlexNetArchitecture(),
    "alexnet_2012": AlexNetArchitecture((96, 256, 384, 384, 256)),
    "alexnet_small_stem": AlexNetArchitecture(stem="conv3x3_s1", pooled_size=3),
    # Simonyan and Zisserman 2015 (arXiv 1409.1556), table 1, column D; the small ones are those of kuangliu's
    # pytorch-cifar, for 32 px.
    "vgg16": VGGArchitecture(),
    "vgg16_bn": VGGArchitecture(norm="batch"),
    "vgg16_small": VGGArchitecture(hidden=0),
    "vgg16_bn_small": VGGArchitecture(norm="batch", hidden=0),
    # Szegedy et al. 2015 (arXiv 1409.4842), table 1: as in torchvision, as in the paper, and with a stem for 32 px.
    "googlenet": GoogLeNetArchitecture(),
    "googlenet_2014": GoogLeNetArchitecture(window=5, norm="none", last_pool=3),
    "googlenet_small_stem": GoogLeNetArchitecture(stem="conv3x3_s1"),
    # Huang et al. 2017 (arXiv 1608.06993), table 1 for 224 px, with 161 as in the authors' repository, and table 2 for
    # 32 px, where the number counts the layers with weights.
    "densenet121": DenseNetArchitecture((6, 12, 24, 16), growth_rate=32, stem_dim=64),
    "densenet169": DenseNetArchitecture((6, 12, 32, 32), growth_rate=32, stem_dim=64),
    "densenet201": DenseNetArchitecture((6, 12, 48, 32), growth_rate=32, stem_dim=64),
    "densenet161": DenseNetArchitecture((6, 12, 36, 24), growth_rate=48, stem_dim=96),
    "densenet100_k12": DenseNetArchitecture((16, 16, 16), growth_rate=12, stem_dim=24, stem="conv3x3_s1"),
    "densenet250_k24": DenseNetArchitecture((41, 41, 41), growth_rate=24, stem_dim=48, stem="conv3x3_s1"),
    "densenet190_k40": DenseNetArchitecture((31, 31, 31), growth_rate=40, stem_dim=80, stem="conv3x3_s1"),
    # Liu et al. 2021 (arXiv 2103.14030), section 3.3; the same with patches and windows for 32 px; and the network that
    # Lee et al. 2021 (arXiv 2112.13492), "Swin-T", chose for small images, whose windows divide all three maps: with
    # patches of 2 for 32 px, of 4 for 64 px.
    "swin_tiny": SwinArchitecture(96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_small": SwinArchitecture(96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "swin_base": SwinArchitecture(128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_tiny_patch2_window4": SwinArchitecture(96, (2, 2, 6, 2), (3, 6, 12, 24), patch_size=2, window=4),
    "swin_small_patch2_window4": SwinArchitecture(96, (2, 2, 18, 2), (3, 6, 12, 24), patch_size=2, window=4),
    "swin_base_patch2_window4": SwinArchitecture(128, (2, 2, 18, 2), (4, 8, 16, 32), patch_size=2, window=4),
    "swin_3stage_patch2_window4": SwinArchitecture(96, (2, 6, 4), (3, 6, 12), patch_size=2, window=4, expansion=2),
    "swin_3stage_patch4_window4": SwinArchitecture(96, (2, 6, 4), (3, 6, 12), window=4, expansion=2),
    # Hassani et al. 2021 (arXiv 2104.05704), table 2: blocks, then the side of a patch, or the side and number of the
    # convolutions. CVT is the Compact Vision Transformer. Those with convolutions of 7 are for 224 px.
    **_compact_transformers(),
    # Wu et al. 2021 (arXiv 2103.15808), table 2, and the same with a stem for small images.
    "cvt_13": CvTArchitecture((1, 2, 10)),
    "cvt_21": CvTArchitecture((1, 4, 16)),
    "cvt_13_small_stem": CvTArchitecture((1, 2, 10), stem="conv3x3_s2"),
    "cvt_21_small_stem": CvTArchitecture((1, 4, 16), stem="conv3x3_s2"),
    # Jeevan et al. 2022 (arXiv 2205.14375): channels and blocks. By pranavphoenix/WaveMix, 64/6 reaches 90% on CIFAR-10
    # with 520,106 parameters, 144/7 is its example for CIFAR-10, 256/7 the paper's for CIFAR-100 and images of 64 px,
    # 256/12 is for Tiny ImageNet and 192/16 for ImageNet.
    "wavemix_lite_64_6": WaveMixArchitecture(64, 6),
    "wavemix_lite_144_7": WaveMixArchitecture(144, 7),
    "wavemix_lite_256_7": WaveMixArchitecture(256, 7),
    "wavemix_lite_256_12": WaveMixArchitecture(256, 12),
    "wavemix_lite_192_16": WaveMixArchitecture(192, 16, stem="patch4"),
}
