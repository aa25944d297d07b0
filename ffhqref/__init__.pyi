from ffhqref.api.benchmarks import Cases as Cases
from ffhqref.api.benchmarks import benchmark as benchmark
from ffhqref.api.case import Case as Case
from ffhqref.api.evaluation import Evaluation as Evaluation
from ffhqref.api.evaluation import evaluate as evaluate
from ffhqref.api.metrics import metric as metric
from ffhqref.api.names import (
    list_benchmarks as list_benchmarks,
)
from ffhqref.api.names import (
    list_datasets as list_datasets,
)
from ffhqref.api.names import (
    list_degradations as list_degradations,
)
from ffhqref.api.names import (
    list_embedders as list_embedders,
)
from ffhqref.api.names import (
    list_metrics as list_metrics,
)
from ffhqref.api.names import (
    list_restorers as list_restorers,
)
from ffhqref.api.names import (
    read as read,
)
from ffhqref.api.restorers import restorer as restorer
from ffhqref.api.sets import build_reference_sets as build_reference_sets
from ffhqref.api.sets import degrade as degrade
from ffhqref.core.errors import FfhqrefError as FfhqrefError
from ffhqref.training.dataset import (
    KeyedSampler as KeyedSampler,
)
from ffhqref.training.dataset import (
    ReferenceDataset as ReferenceDataset,
)
from ffhqref.training.dataset import (
    collate as collate,
)

__version__: str
