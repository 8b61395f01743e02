"""Drills: commands that measure a real cluster under faults and compare; run before a release, not in CI."""
