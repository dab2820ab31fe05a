"""The batch service: specs become jobs, jobs become shards, workers measure them, the ledger decides what counts."""
