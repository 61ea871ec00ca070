"""The names of the data sets, and what each name loads."""

import difflib
import re

from convnext_jax.errors import UserError

OWN_NAMES = ("digits", "cifar10", "cifar100", "tiny_imagenet", "image_folder")


def dataset_names() -> tuple[str, ...]:
    """The names that this project documents; every image classification data set of TFDS works as well."""
    return OWN_NAMES


def check_name(name: str) -> None:
    """Refuses a data set that does not exist.

    Args:
      name: a name of ``dataset_names()``, or of a data set that TFDS registers, with its configuration after
        a slash where it has several.

    Raises:
      UserError: there is no such data set.
    """
    if name in OWN_NAMES:
        return
    known: set[str] = set(OWN_NAMES)
    if re.fullmatch(r"\w+(/[\w.\-]+)?", name):
        import tensorflow_datasets as tfds  # a second to import, so only where a name is not one of ours

        known.update(tfds.list_builders(with_community_datasets=False))
        if name.partition("/")[0] in known - set(OWN_NAMES):
            return
    close = difflib.get_close_matches(name, OWN_NAMES, n=1, cutoff=0.8)
    close = close or difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise UserError(
        f"unknown data set {name!r}: {hint}Use one of {', '.join(OWN_NAMES)}, or the name of another image "
        "classification data set of TFDS"
    )
