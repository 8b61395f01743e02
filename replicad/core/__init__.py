"""What is true: vocabulary, protocols and algorithms, pure and deterministic."""
