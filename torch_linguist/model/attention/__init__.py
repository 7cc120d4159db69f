"""The layers of the Transformer: a block, its operations, and fast ones for training windows on a CPU."""
