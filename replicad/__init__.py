"""replicad: a replicated key-value server that may be broken on purpose."""

__version__ = "0.1.0"
