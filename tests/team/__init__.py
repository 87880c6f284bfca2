"""A team's own servers: PostgreSQL, MLflow with accounts, Prefect with its word; real ones, on loopback."""
