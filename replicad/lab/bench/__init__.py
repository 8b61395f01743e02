"""Measuring a running cluster: what is measured in which order, the load, and what the figures say."""
