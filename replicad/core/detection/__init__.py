"""Failure detectors, as pure functions of what was heard and when."""
