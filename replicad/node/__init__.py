"""One operating-system process: settings, clock, transport, disk, and the runtime that drives the core."""
