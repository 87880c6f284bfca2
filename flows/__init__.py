"""Wiring: the study as a Prefect flow, and the command line that runs it."""
