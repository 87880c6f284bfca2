"""Benchmarks: the main job beside a plain Keras script and hand-written TensorFlow, in one run on one machine."""
