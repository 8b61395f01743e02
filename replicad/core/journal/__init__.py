"""The message log as pure functions: records, segments, recovery."""
