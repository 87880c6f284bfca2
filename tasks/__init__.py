"""Prefect tasks: caching, retries and tracking around the science."""
