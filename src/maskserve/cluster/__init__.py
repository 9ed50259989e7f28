"""Ray: the same interface and the same rows, on as many machines as there are."""
