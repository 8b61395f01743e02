"""The vocabulary: identifiers, operations, messages, errors and limits."""
