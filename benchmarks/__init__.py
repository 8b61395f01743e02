"""Replicad, etcd and Redis on one machine, driven by the same load generators: ``python -m benchmarks --help``."""
