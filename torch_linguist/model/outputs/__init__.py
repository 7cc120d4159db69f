"""Output layers: hidden vectors -> logits and losses (full, adaptive, sampled, mixture of softmaxes)."""
