"""TensorFlow as every computation here finds it: whatever touches it first imports this module before.

The number of threads is fixed rather than taken from the machine, since the order of a sum can depend on it.
"""

import os
import warnings

import keras
import tensorflow as tf

THREADS = 2
"""Threads of TensorFlow's pool."""


def _fix() -> None:
    """Set the thread pools before TensorFlow starts; afterwards it refuses, so say what that means for the bits."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        # A worker's environment may have fixed them already, which the getter does not tell.
        known = tf.config.threading.get_intra_op_parallelism_threads() or os.environ.get("TF_NUM_INTRAOP_THREADS")
        if str(known) != str(THREADS):
            warnings.warn(
                f"TensorFlow was started before layerwise with other than {THREADS} threads; results may differ in"
                " their last bits from other runs. Import layerwise.backend before using TensorFlow.",
                stacklevel=2,
            )
    # A user's keras.json could say otherwise, and with it every number would change.
    keras.config.set_floatx("float32")


_fix()
