"""What happens when something happens: nodes that are killed, restarted, away; checkpoints; more nodes; protocols."""
