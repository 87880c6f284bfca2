"""Tests of tasks/tracking, on real MLflow stores."""
