"""The networks that the tests go through: a new model, or a new family, is a row here."""

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
from convnext_jax.models.preact_resnet import PreActResNetArchitecture
from convnext_jax.models.replknet import RepLKNetArchitecture
from convnext_jax.models.resnet import ResNetArchitecture
from convnext_jax.models.road import RoadArchitecture
from convnext_jax.models.swin import SwinArchitecture
from convnext_jax.models.vgg import VGGArchitecture
from convnext_jax.models.vit import ViTArchitecture
from convnext_jax.models.wavemix import WaveMixArchitecture

# With a head of 1,000 classes, to the last parameter; ConvNeXts are published as 3.7, 5.2, 9.05, 15.6, 28.6, 50.2,
# 88.6, 197.8 and 350.2 million, V2 as 3.7, 5.2, 9.1, 15.6, 28.6, 89, 198 and 660, isotropic as 22, 87 and 306. ResNets
# and Swin Transformers are torchvision's, Vision Transformers timm's, CvTs those of transformers.
COUNTS = {
    "convnext_atto": 3_695_520,
    "convnext_femto": 5_217_784,
    "convnext_pico": 9_045_672,
    "convnext_nano": 15_593_560,
    "convnext_tiny": 28_589_128,
    "convnext_small": 50_223_688,
    "convnext_base": 88_591_464,
    "convnext_large": 197_767_336,
    "convnext_xlarge": 350_196_968,
    "convnextv2_atto": 3_708_400,
    "convnextv2_femto": 5_233_240,
    "convnextv2_pico": 9_066_280,
    "convnextv2_nano": 15_623_800,
    "convnextv2_tiny": 28_635_496,
    "convnextv2_base": 88_717_800,
    "convnextv2_large": 197_956_840,
    "convnextv2_huge": 660_289_640,
    "convnext_isotropic_small": 22_308_712,
    "convnext_isotropic_base": 87_083_752,
    "convnext_isotropic_large": 305_942_504,
    "convnext_multiscale": 13_158_312,
    "convnext_swin_mlp": 28_747_888,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet200": 64_673_832,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "efficientnet_b1": 7_794_184,
    "efficientnet_b2": 9_109_994,
    "efficientnet_b3": 12_233_232,
    "efficientnet_b4": 19_341_616,
    "efficientnet_b5": 30_389_784,
    "efficientnet_b6": 43_040_704,
    "efficientnet_b7": 66_347_960,
    "replknet31b": 79_864_168,
    "road_tiny": 25_557_032,
    "road_base": 64_673_832,
    "vit_tiny_patch16": 5_717_416,
    "vit_small_patch16": 22_050_664,
    "vit_base_patch16": 86_567_656,
    "alexnet": 61_100_840,
    "alexnet_2012": 62_378_344,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
    "googlenet": 13_004_888,  # of which 6,379,984 in auxiliary heads
    "googlenet_2014": 13_378_280,
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet161": 28_681_000,
    "swin_tiny": 28_288_354,
    "swin_small": 49_606_258,
    "swin_base": 87_768_224,
    "cct_7_7x2": 4_804_521,
    "cct_14_7x2": 22_367_273,
    "cvt_13": 19_997_480,
    "cvt_21": 31_622_696,
    "wavemix_lite_192_16": 12_494_536,
}
# The variants for small images, with 10 classes. ViT-Lite-7 and CVT-7/4 are published as 3.72 million, CCT-7/3x1 as
# 3.76.
SMALL_COUNTS = {
    "resnet18_small_stem": 11_173_962,
    "resnet34_small_stem": 21_282_122,
    "resnet50_small_stem": 23_520_842,
    "resnet101_small_stem": 42_512_970,
    "resnet152_small_stem": 58_156_618,
    "resnet200_small_stem": 62_637_642,
    "resnet20": 269_722,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "preact_resnet164": 1_703_258,
    "preact_resnet1001": 10_327_706,
    "resnext50_32x4d_small_stem": 22_992_714,
    "resnext101_32x8d_small_stem": 86_755_146,
    "resnext29_8x64d": 34_426_698,
    "mobilenet_v2_small_stem": 2_236_682,
    "efficientnet_b0_small_stem": 4_020_358,
    "replknet17b_small_stem": 73_504_138,
    "vit_tiny_patch4": 5_362_762,
    "vit_small_patch4": 21_342_346,
    "vit_base_patch4": 85_152_010,
    "lenet5": 61_706 + 2 * 5 * 5 * 6,  # three channels instead of one
    "alexnet_small_stem": 28_711_754,
    "vgg16_small": 14_719_818,
    "vgg16_bn_small": 14_728_266,
    "googlenet_small_stem": 9_952_958,
    "densenet100_k12": 769_162,
    "densenet250_k24": 15_324_406,
    "densenet190_k40": 25_624_430,
    "swin_tiny_patch2_window4": 27_507_028,
    "swin_small_patch2_window4": 48_807_652,
    "swin_base_patch2_window4": 86_703_746,
    "swin_3stage_patch2_window4": 7_048_612,
    "swin_3stage_patch4_window4": 7_052_068,
    "vit_lite_6": 3_190_538,
    "vit_lite_7": 3_716_874,
    "cvt_7_4": 3_716_619,
    "cct_6_3x1": 3_233_803,
    "cct_7_3x1": 3_760_139,
    "cct_7_3x2": 3_853_259,
    "cvt_13_small_stem": 19_608_650,
    "cvt_21_small_stem": 31_233_866,
    "wavemix_lite_64_6": 520_106,
    "wavemix_lite_144_7": 3_042_550,
    "wavemix_lite_256_7": 9_602_250,
    "wavemix_lite_256_12": 16_245_770,
    # Published as 1.97 million; the kernel that whitens is not counted.
    "airbench94": 1_971_352,
    "airbench95": 4_604_440,
    "airbench96": 12_717_464,
}

# An instance of each family so small that a test may compile its training step. A ConvNeXt has kernels of 3 pixels:
# those of 7 take five times as long to compile.
TINY = ConvNeXtArchitecture((1, 1, 1, 1), (8, 8, 16, 16), stem="patch2", layer_scale=0.1, kernel_size=3)
RESNET = ResNetArchitecture((1, 1), "basic", width=8, stem="conv3x3_s1")
PREACT_RESNET = PreActResNetArchitecture((1, 3), width=4)
# MobileNetV2 is the same network with other rows.
EFFICIENTNET = EfficientNetArchitecture(0.1, 0.1, strides=(1, 2))
REPLKNET = RepLKNetArchitecture((5, 3), (1, 1), (8, 16), stem="stride1", small_kernel=3, expansion=2)
# A step on the way, with depthwise convolutions of stride 2, one norm and one activation.
ROAD = RoadArchitecture(
    (1, 1),
    8,
    stem="patch2",
    convolution="depthwise",
    design="spatial_first",
    one_activation=True,
    one_norm=True,
    layer_scale=0.1,
)
VIT = ViTArchitecture(16, 4, 2, patch_size=4, image_size=16)
SWIN = SwinArchitecture(8, (2, 1), (2, 2), patch_size=2, window=4, expansion=2)
COMPACT_TRANSFORMER = CompactTransformerArchitecture(8, 4, 2, image_size=16)
CVT = CvTArchitecture((1, 1), (4, 8), (1, 2), stem="conv3x3_s2", expansion=2)
WAVEMIX = WaveMixArchitecture(8, 4)
FAMILIES: dict[str, Architecture] = {
    "convnext": TINY,
    "resnet": RESNET,
    "vit": VIT,
    "lenet": LeNetArchitecture((4, 8, 16), 12),
    "alexnet": AlexNetArchitecture((4, 8, 8, 8, 8), hidden=16, stem="conv3x3_s1", pooled_size=2),
    "vgg": VGGArchitecture((2, 1), (4, 8), norm="batch", hidden=16, pooled_size=2),
    "googlenet": GoogLeNetArchitecture((1, 1, 1), width=4, stem="conv3x3_s1", norm="none"),
    "densenet": DenseNetArchitecture((2, 1), growth_rate=4, stem_dim=8, stem="conv3x3_s1"),
    "preact_resnet": PREACT_RESNET,
    "efficientnet": EFFICIENTNET,
    "replknet": REPLKNET,
    "swin": SWIN,
    "compact_transformer": COMPACT_TRANSFORMER,
    "road": ROAD,
    "cvt": CVT,
    "wavemix": WAVEMIX,
    "airbench": AirbenchArchitecture((8, 16), depth=3),
}
# Named networks that have every kind of layer, for what depth and width do not change.
EVERY_LAYER = (
    "convnext_atto",
    "convnextv2_atto",
    "convnext_isotropic_small",
    "convnext_swin_mlp",
    "resnet18",
    "resnet50",
    "resnext29_8x64d",
    "preact_resnet164",
    "vit_tiny_patch4",
    "vit_lite_6",
    "cvt_7_4",
    "cct_7_3x1",
    "swin_tiny_patch2_window4",
    "cvt_13",
    "lenet5",
    "alexnet_2012",
    "vgg16_bn_small",
    "googlenet",
    "googlenet_2014",
    "densenet100_k12",
    "mobilenet_v2",
    "efficientnet_b0",
    "replknet31b",
    "wavemix_lite_64_6",
    "road_tiny",
)
