"""What a model carries from call to call."""

from torch import Tensor

State = list[Tensor]
"""The state of a model. The batch is on axis 1 of each tensor."""


def detach_state(state: State) -> State:
    """Return the state without its gradient history: backpropagation through time stops here.

    Example:
        >>> state = detach_state(LSTM(100, embedding_dim=8, hidden_size=8).initial_state(2))
        >>> state[0].requires_grad
        False
    """
    return [tensor.detach() for tensor in state]
