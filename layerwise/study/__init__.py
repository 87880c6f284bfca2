"""The study: one short file that says what is asked, on which data, with which network and training.

This is the only schema. Every part is frozen and validated when it is built; unknown keys and names are
refused with the nearest known one, before any work starts. Optional parts default to ``None`` and are left
out of digests, so a later version can add a part without renaming the studies that do not use it.
"""

from layerwise.study.arms import CONTROLS, WORDS, Arm, Control, KeptModels, Procedure
from layerwise.study.claims import (
    ALPHA,
    KINDS_OF_CLAIM,
    Bound,
    Claim,
    Compare,
    Equivalent,
    Ordered,
    Rate,
    Ratio,
    Stop,
    Trend,
)
from layerwise.study.data import (
    DATA_SETS,
    Blobs,
    BreastCancer,
    Circles,
    Classification,
    DataSet,
    Diabetes,
    Digits,
    Moons,
    Wine,
)
from layerwise.study.declaring import Declared, DeclaredNetwork, declared_network
from layerwise.study.growing import SHALLOWEST, Grow
from layerwise.study.layers import (
    KINDS_OF_LAYER,
    Activation,
    AnyLayer,
    Bottom,
    Conv,
    Custom,
    Dense,
    Encoder,
    Gru,
    Initializer,
    Layer,
    Lstm,
    Network,
    Residual,
    RowShape,
    incoming_shapes,
    passes_sequences,
    shape_below,
    unrolled,
)
from layerwise.study.own_data import Arrays, InMemory, Loader, Missing, OwnData, Table
from layerwise.study.parts import StudyError, digest_of
from layerwise.study.reading import MAX_FILE_BYTES, load, parse, shipped
from layerwise.study.scores import Score, held_out, looks, sides
from layerwise.study.split import Scaling, Shape, Split, Task
from layerwise.study.study import (
    BLOCK_BYTES,
    BLOCK_SEEDS,
    MOST_ARMS,
    MOST_SEEDS,
    WIDE_LAYER,
    Study,
    Track,
    block_size,
)
from layerwise.study.training import (
    OPTIMIZERS,
    Adagrad,
    Adam,
    FineTune,
    GaussianNoise,
    MaskingNoise,
    Noise,
    Optimizer,
    Rmsprop,
    Sgd,
    Training,
)

__all__ = [
    "ALPHA", "BLOCK_BYTES", "BLOCK_SEEDS", "CONTROLS", "DATA_SETS", "KINDS_OF_CLAIM", "KINDS_OF_LAYER",
    "MAX_FILE_BYTES", "MOST_ARMS", "MOST_SEEDS", "OPTIMIZERS", "SHALLOWEST", "WIDE_LAYER", "WORDS", "Activation",
    "Adagrad", "Adam", "AnyLayer", "Arm", "Arrays", "Blobs", "Bottom", "Bound", "BreastCancer", "Circles", "Claim",
    "Classification", "Compare", "Control", "Conv", "Custom", "DataSet", "Declared", "DeclaredNetwork", "Dense",
    "Diabetes", "Digits", "Encoder", "Equivalent", "FineTune", "GaussianNoise", "Grow", "Gru", "InMemory",
    "Initializer", "KeptModels", "Layer", "Loader", "Lstm", "MaskingNoise", "Missing", "Moons", "Network", "Noise",
    "Optimizer", "Ordered", "OwnData", "Procedure", "Rate", "Ratio", "Residual", "Rmsprop", "RowShape", "Scaling",
    "Score", "Sgd", "Shape", "Split", "Stop", "Study", "StudyError", "Table", "Task", "Track", "Training", "Trend",
    "Wine", "block_size", "declared_network", "digest_of", "held_out", "incoming_shapes", "load", "looks", "parse",
    "passes_sequences", "shape_below", "shipped", "sides", "unrolled",
]  # fmt: skip
