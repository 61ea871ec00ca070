"""Real photographs that ship with scikit-learn, cut into small images."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


@functools.cache
def photographs(height: int = 32, width: int = 40) -> np.ndarray:
    """uint8 [12, height, width, 3]: six pieces of each of the two photographs, scaled down."""
    pieces = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph)
        for index in range(6):
            left, upper = 200 * (index % 3), 210 * (index // 3)
            piece = image.crop((left, upper, left + 200, upper + 210)).resize((width, height))
            pieces.append(np.asarray(piece))
    return np.stack(pieces)
