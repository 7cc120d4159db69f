"""Training in several processes: rank and world size, agreement, data-parallel gradients, `torchrun`."""
