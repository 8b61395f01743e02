"""What the cluster knows of itself: its groups and nodes, and what a node opens, moves and deletes because of it."""
