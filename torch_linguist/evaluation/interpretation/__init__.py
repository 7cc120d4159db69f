"""What a model uses of its context: sensitivity, attribution, and its word vectors."""
