"""The 15 common corruptions of images, on the device, deterministic.

Reference:
  Hendrycks and Dietterich, `Benchmarking Neural Network Robustness to Common Corruptions and Perturbations
  <https://arxiv.org/abs/1903.12261>`_, 2019, and the generators of CIFAR-10-C and Tiny-ImageNet-C that they published.
"""
