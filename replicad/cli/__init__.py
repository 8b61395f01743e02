"""The replicad command."""
