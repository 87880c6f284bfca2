"""MLflow: the store, the tree of runs of a study, what is published on it, and the answer read back.

The only package of the project that imports mlflow. It knows nothing of Prefect, and loads Keras only to turn
a model into a template. Everything here may be called again after a kill with the same arguments: what stands
is left alone, what is missing is added, and what differs is refused.

* :mod:`tasks.tracking.store` opens (and the first time creates) the store,
* :mod:`tasks.tracking.runs` finds or creates the runs of a study, and closes them,
* :mod:`tasks.tracking.publishing` puts metrics, models, artifacts and data sets onto them,
* :mod:`tasks.tracking.registry` makes the chosen network a version of the registered model of the study's name,
* :mod:`tasks.tracking.templates` writes the Keras models of many seeds from one saved model,
* :mod:`tasks.tracking.views` says what a study's page opens on,
* :mod:`tasks.tracking.answers` reads a finished study back, and says what is missing.
"""
