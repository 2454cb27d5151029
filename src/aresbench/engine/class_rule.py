"""How a model's outputs answer a dataset's labels: matched by name, and by a public order where there are no names."""

from __future__ import annotations

from dataclasses import replace

from aresbench.core.classes import Classes, ClassMap, match_classes
from aresbench.core.errors import DataError
from aresbench.data.base import Dataset
from aresbench.models.classifier import Classifier


def class_map_for(model: Classifier, data: Dataset) -> ClassMap:
    """Match a model's outputs to a dataset's labels, by name wherever there are names.

    A model that names no classes is matched by index alone where the data follow a public order of classes
    (ImageNet's, CIFAR-10's, that of the digits …) and the number of outputs agrees. Where the dataset's rule
    is ``subset``, the model's other outputs take no part.

    Raises:
        DataError: they cannot be matched.
    """
    subset = data.class_rule == "subset"
    if model.classes is not None:
        return match_classes(data.classes, model.classes, subset=subset)
    if data.standard is not None and model.num_classes in (None, len(data.standard)):
        found = match_classes(data.classes, data.standard, subset=subset)
        return found if found.outputs else replace(found, rule="index")
    if data.standard is not None:
        raise DataError(
            f"{model.name} has {model.num_classes} outputs, the order of {data.name} has {len(data.standard)} classes",
            "name the model's classes, so that they can be matched",
        )
    raise DataError(
        f"{model.name} does not say what its outputs mean, and the folder order of {data.name} proves nothing",
        "name its classes: Classifier(module, classes=[…])",
    )


def output_names(model: Classifier, data: Dataset, class_map: ClassMap) -> list[str]:
    """The class behind each logit after the class map; stored labels and predictions point into this list."""
    names = _whole_classes(model, data).names
    if not class_map.outputs:
        return list(names)
    own = dict(zip(class_map.target, data.classes.names, strict=True)) if data.classes.members else {}
    return [own.get(k) or names[group[0]] for k, group in enumerate(class_map.outputs)]


def _whole_classes(model: Classifier, data: Dataset) -> Classes:
    """What each of the model's outputs means: by its own names, or in the public order that the data follow."""
    return model.classes or data.standard or data.classes
