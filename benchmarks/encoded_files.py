"""Pictures for `benchmarks.streaming`, in a file of their own, which the processes that decode can import."""

from collections.abc import Iterator, Sequence

from convnext_jax.data.decode import Picture


class Files:
    """Encoded pictures in memory, each many times."""

    def __init__(self, encoded: Sequence[bytes], count: int) -> None:
        self.encoded, self.count = encoded, count

    def __len__(self) -> int:
        return self.count

    def read_at(self, indices: Sequence[int]) -> Iterator[Picture]:
        """See `convnext_jax.data.encoded_images.RandomAccess`."""
        for index in indices:
            yield Picture(f"picture {index}", self.encoded[index % len(self.encoded)], 0)
