"""The HTTP interface and the pages served from it."""
