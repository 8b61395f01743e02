"""Programs that load a cluster, none of them made for replicad, and the reading of what they print."""
