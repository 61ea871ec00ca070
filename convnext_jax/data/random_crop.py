"""Random rectangles of encoded pictures, which are drawn where the pictures are decoded."""

import dataclasses
import math

import numpy as np

from convnext_jax.data.decode import Box

_ATTEMPTS = 10


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Draws a rectangle of a picture, as torchvision's ``RandomResizedCrop`` does.

    `convnext_jax.augment.geometry.random_resized_crop` does it for decoded images, which keep their size: there an
    image stays as it is where no rectangle fits.

    It is a function of the seed, the epoch and the example alone. The numbers are NumPy's, not those of JAX's keys:
    the processes that decode do not import JAX, which takes them a second.

    >>> RandomCrop(seed=0, min_area=0.08).box(epoch=3, index=7, width=500, height=375)
    (107, 64, 393, 316)

    Attributes:
      seed: of the run.
      min_area: smallest share of the picture's area, in (0, 1]. The share is drawn uniformly between it and 1.
      ratio: smallest and largest ratio of width to height. The ratio is drawn uniformly on a logarithmic scale.

    Reference:
      Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2015.
    """

    seed: int
    min_area: float
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def box(self, epoch: int, index: int, width: int, height: int) -> Box:
        """Returns the rectangle of an example in an epoch.

        If ten rectangles in a row do not fit, it is the largest one about the center whose ratio is allowed.

        Args:
          epoch: counted from 0.
          index: of the example in its split.
          width: of the picture in pixels.
          height: of the picture in pixels.
        """
        # The numbers of a counter are documented to be the same in every release; those of a NumPy Generator are not.
        bits = np.random.Philox(key=self.seed, counter=[0, 0, epoch, index]).random_raw(4 * _ATTEMPTS)
        uniform = (np.asarray(bits, np.uint64) >> np.uint64(11)) * 2.0**-53  # [0, 1)
        least, most = map(math.log, self.ratio)
        for share, shape, x, y in uniform.reshape(_ATTEMPTS, 4).tolist():
            area = width * height * (self.min_area + share * (1 - self.min_area))
            ratio = math.exp(least + shape * (most - least))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, upper = int(x * (width - w + 1)), int(y * (height - h + 1))
                return left, upper, left + w, upper + h
        w, h = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h
