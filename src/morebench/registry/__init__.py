"""What morebench knows: one line a dataset, method, task and metric.

Only the standard library is imported here, so that a dry run costs nothing. An
``entry`` is ``module:function``, imported where it is called.
"""

from morebench.registry.datasets import DATASETS
from morebench.registry.methods import ENVIRONMENTS, METHODS
from morebench.registry.specs import (
    ACCEPTED_STATES,
    OUTPUT_KINDS,
    SPLIT_KINDS,
    STATES,
    TRACKS,
    TRUSTED_LABEL_SOURCES,
    DatasetSpec,
    EnvironmentSpec,
    MethodSpec,
    MetricSpec,
    TaskSpec,
    fit_split,
    split_kind,
)
from morebench.registry.tasks import METRICS, TASKS

__all__ = [
    "ACCEPTED_STATES",
    "DATASETS",
    "DatasetSpec",
    "ENVIRONMENTS",
    "EnvironmentSpec",
    "METHODS",
    "METRICS",
    "MethodSpec",
    "MetricSpec",
    "OUTPUT_KINDS",
    "SPLIT_KINDS",
    "STATES",
    "TASKS",
    "TRACKS",
    "TRUSTED_LABEL_SOURCES",
    "TaskSpec",
    "fit_split",
    "split_kind",
]
