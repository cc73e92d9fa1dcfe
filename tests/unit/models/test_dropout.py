"""The dropout that a CPU draws quickly drops and scales as torch's, in both directions."""

import pytest
import torch
from torch import nn

from kdray.models.dropout import Dropout, quicken_dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_elements_are_dropped_at_the_rate_and_the_mean_stays(rate, dtype):
    torch.manual_seed(0)
    given = torch.ones(101, 997, dtype=dtype, requires_grad=True)
    made = Dropout(rate)(given)
    dropped = made == 0
    assert dropped.float().mean().item() == pytest.approx(rate, abs=0.005)
    assert dropped.float().mean(0).std().item() == pytest.approx((rate * (1 - rate) / 101) ** 0.5, rel=0.1)
    torch.testing.assert_close(made[~dropped].unique(), torch.tensor([1 / (1 - rate)], dtype=dtype), rtol=1e-2, atol=0)
    made.backward(torch.full_like(made, 2))
    torch.testing.assert_close(given.grad, 2 * made.detach())


def test_a_seed_gives_the_same_elements():
    torch.manual_seed(7)
    first = Dropout(0.3)(torch.ones(1000))
    torch.manual_seed(7)
    assert torch.equal(Dropout(0.3)(torch.ones(1000)), first)
    assert not torch.equal(Dropout(0.3)(torch.ones(1000)), first)


@pytest.mark.parametrize(("rate", "training", "scale"), [
    (0.0, True, 1), (1.0, True, 0), (0.5, False, 1), (1e-9, True, 1)])
def test_without_chance_it_is_torchs(rate, training, scale):
    assert torch.equal(Dropout(rate).train(training)(torch.ones(50)), torch.full((50,), float(scale)))


def test_every_dropout_of_a_model_is_replaced_and_nothing_else():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2), nn.Dropout1d(0.3)), nn.Dropout(0.4))
    quicken_dropout(model)
    assert [type(part) for part in (model[0], model[1][0], model[1][1], model[2])] == [
        nn.Linear, Dropout, nn.Dropout1d, Dropout]
    assert (model[1][0].p, model[2].p) == (0.2, 0.4)
