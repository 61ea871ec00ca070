"""The task of an experiment, as a value."""

from convnext_jax.config import Experiment
from convnext_jax.data import Dataset
from convnext_jax.errors import UserError
from convnext_jax.tasks.classification import Classification
from convnext_jax.tasks.interface import Task
from convnext_jax.tasks.multitask import MultiTask
from convnext_jax.tasks.segmentation import PixelLoss, Segmentation


def data_for_task(experiment: Experiment, dataset: Dataset) -> Dataset:
    """Returns the data as the task of an experiment learns from them: without their masks if it is a classification."""
    return dataset if experiment.task.has_masks else dataset.without_masks()


def task_without_data(experiment: Experiment) -> Task:
    """Returns the task of an experiment whose data are not known, as if they had one class of everything.

    What does not depend on the number of classes is right, such as the names of the figures.
    """
    return make_task(experiment, num_classes=1, mask_classes=1)


def make_task(experiment: Experiment, *, num_classes: int, mask_classes: int) -> Task:
    """Returns the task that an experiment names.

    Args:
      experiment: the settings.
      num_classes: classes of the images of its data; 0 if they have none.
      mask_classes: classes of their masks; 0 if they have none.

    Raises:
      UserError: the data have not what the task needs.
    """
    config, data, smoothing = experiment.task, experiment.data.name, experiment.optim.label_smoothing
    if config.has_masks and not mask_classes:
        raise UserError(f"config.task.name={config.name}: {data} has no masks; set config.task.name=classification")
    if config.name != "segmentation" and not num_classes:
        raise UserError(
            f"config.task.name={config.name}: the images of {data} have no classes, only masks;"
            " set config.task.name=segmentation"
        )
    classification = Classification(num_classes, smoothing)
    if not config.has_masks:
        return classification
    segmentation = Segmentation(
        num_classes=mask_classes,
        pixel_loss=PixelLoss(
            terms=config.losses,
            label_smoothing=smoothing,
            dice_smoothing=config.dice_smoothing,
            dice_over_batch=config.dice_over == "batch",
            dice_background=config.dice_background,
            focal_gamma=config.focal_gamma,
        ),
        head=config.head,
        head_channels=config.head_channels,
        auxiliary_weight=config.auxiliary_weight,
    )
    if config.name == "segmentation":
        return segmentation
    return MultiTask(classification, segmentation, config.classification_weight)
