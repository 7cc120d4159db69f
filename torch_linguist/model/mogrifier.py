"""A layer of an LSTM whose input and hidden vector gate each other, written out step by step.

Shape legend: B batch, T time, D width of the input, H hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_linguist.errors import LinguistError


class MogrifierLSTM(nn.Module):
    """One time-major layer of a Mogrifier LSTM (Melis et al. 2020), with the weights of `nn.LSTM` and further gates.

    Before each step of the cell, the input x and the hidden vector h of the last step change each other in rounds:
    x becomes x * 2 sigmoid(Q h + b) in the rounds 1, 3, ..., and h becomes h * 2 sigmoid(R x + b) in the rounds 2, 4,
    ... No fused kernel computes this, so a step is several times slower than that of `nn.LSTM`.

    Args:
        input_size: D.
        hidden_size: H.
        rounds: number of rounds; 0 leaves x and h as they are.
        rank: rank of the matrices Q and R; None for full matrices.
        capped_input_gate: whether the input gate i is at most 1 - f, where f is the forget gate, so that the cell stays
            between -1 and 1 (the setting of the published results).

    Raises:
        LinguistError: `rounds` is negative or `rank` is not positive.
    """

    mode: str = "LSTM"

    def __init__(
        self, input_size: int, hidden_size: int, rounds: int, rank: int | None, capped_input_gate: bool
    ) -> None:
        super().__init__()
        if rounds < 0:
            raise LinguistError(f"model.mogrifier_rounds={rounds}: must be at least 0")
        if rank is not None and rank < 1:
            raise LinguistError(f"model.mogrifier_rank={rank}: must be null or at least 1")
        self.hidden_size: int = hidden_size
        self.capped_input_gate: bool = capped_input_gate
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh_l0 = nn.Parameter(torch.empty(4 * hidden_size))
        # As `nn.LSTM` starts.
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        sizes = [(hidden_size, input_size), (input_size, hidden_size)]
        self.rounds = nn.ModuleList(_gate(*sizes[place % 2], rank) for place in range(rounds))

    def forward(self, features: Tensor, past: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map features [T, B, D] and h, c [1, B, H] to the hidden vectors [T, B, H] and the last h, c."""
        return self.read(features, past, self.weight_hh_l0)

    def read(
        self, features: Tensor, past: tuple[Tensor, Tensor], recurrent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Do as `forward`, with another recurrent weight [4 H, H]."""
        hidden, cell = past[0][0], past[1][0]
        outputs: list[Tensor] = []
        for step in range(features.shape[0]):
            entering = features[step]
            for place, gate in enumerate(self.rounds):
                if place % 2 == 0:
                    entering = entering * (2.0 * torch.sigmoid(gate(hidden)))
                else:
                    hidden = hidden * (2.0 * torch.sigmoid(gate(entering)))
            gates = F.linear(entering, self.weight_ih_l0, self.bias_ih_l0)
            gates = gates + F.linear(hidden, recurrent, self.bias_hh_l0)
            entry, forget, candidate, output = gates.chunk(4, dim=1)
            entry, forget = torch.sigmoid(entry), torch.sigmoid(forget)
            if self.capped_input_gate:
                entry = torch.minimum(entry, 1.0 - forget)
            cell = forget * cell + entry * torch.tanh(candidate)
            hidden = torch.sigmoid(output) * torch.tanh(cell)
            outputs.append(hidden)
        return torch.stack(outputs), (hidden.unsqueeze(0), cell.unsqueeze(0))


def _gate(source: int, target: int, rank: int | None) -> nn.Module:
    """Return a linear map that starts near zero, so that each vector starts nearly unchanged."""
    if rank is None:
        layers = [nn.Linear(source, target)]
    else:
        layers = [nn.Linear(source, rank, bias=False), nn.Linear(rank, target)]
    nn.init.zeros_(layers[-1].bias)
    return layers[0] if rank is None else nn.Sequential(*layers)
