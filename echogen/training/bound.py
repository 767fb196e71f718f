"""The variational bound, by which a network learns the variance of its reverse steps.

L_t = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) for t > 0, and -log p(x_0 | x_1) of the grey
levels for t = 0 (Nichol and Dhariwal 2021, 2102.09672, eq. 4 to 7), with the learned log variance
f log beta_t + (1 - f) log of the posterior's (eq. 15). Steps are counted from 0 here.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from echogen.diffusion.schedule import Schedule

_HALF_LEVEL = 1.0 / 255.0
"""Half the distance of two grey levels in [-1, 1]."""


@dataclass(frozen=True)
class VariationalBound:
    """The schedule's tables that the bound needs, (T,) float32 each.

    Attributes:
        of_x0, of_xt: coefficients of the posterior's mean (DDPM, 2006.11239, eq. 7).
        low: log of the posterior's variance, its step 0 replaced by step 1.
        high: log beta.
    """

    of_x0: Tensor
    of_xt: Tensor
    low: Tensor
    high: Tensor

    def bits(self, x0: Tensor, x_t: Tensor, t: Tensor, predicted: Tensor, share: Tensor) -> Tensor:
        """L_t in bits a dimension, one figure an image.

        Args:
            x0: (B, C, H, W) whole grey levels in [-1, 1].
            x_t: like x0.
            t: (B,) steps.
            predicted: like x0, the network's x_0; give it detached, so that only the variance
                learns from the bound.
            share: like x0, the network's output for the variance, f = (share + 1) / 2.

        Returns:
            (B,) float32.
        """
        of_x0, of_xt, low, high = (
            table[t][:, None, None, None] for table in (self.of_x0, self.of_xt, self.low, self.high)
        )
        log_variance = low + (high - low) * (share + 1) / 2
        mean = of_x0 * predicted + of_xt * x_t
        true_mean = of_x0 * x0 + of_xt * x_t
        kl = 0.5 * (
            log_variance
            - low
            - 1
            + torch.exp(low - log_variance)
            + (true_mean - mean).square() * torch.exp(-log_variance)
        )
        first = (t == 0)[:, None, None, None]
        nats = torch.where(first, -log_likelihood(x0, mean, log_variance), kl)
        return nats.mean(dim=(1, 2, 3)) / math.log(2)


def variational_bound(schedule: Schedule, device: torch.device) -> VariationalBound:
    """The tables of a schedule on a device."""
    import numpy as np

    of_x0, of_xt = schedule.posterior_mean_coefficients
    tables = (of_x0, of_xt, schedule.posterior_log_variance, np.log(schedule.betas))
    return VariationalBound(*(torch.tensor(t, dtype=torch.float32, device=device) for t in tables))


def log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log of the Gaussian's mass on each grey level's interval (DDPM, 2006.11239, eq. 13).

    Args:
        x0: whole grey levels in [-1, 1]; black and white take all mass beyond them.
        mean, log_variance: like x0.

    Returns:
        Like x0, in nats, at least log 1e-12.
    """
    scale = torch.exp(-0.5 * log_variance)
    upper = torch.special.ndtr(scale * (x0 + _HALF_LEVEL - mean))
    lower = torch.special.ndtr(scale * (x0 - _HALF_LEVEL - mean))
    upper = torch.where(x0 > 0.999, 1.0, upper)
    lower = torch.where(x0 < -0.999, 0.0, lower)
    return torch.log((upper - lower).clamp(min=1e-12))
