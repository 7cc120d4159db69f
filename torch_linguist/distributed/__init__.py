"""Several processes that train one model: who is who, what they agree on, and how gradients are combined."""
