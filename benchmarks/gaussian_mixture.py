"""A prior over small pictures whose denoiser and posterior are known in closed form.

A mixture of Gaussians over 20 x 20 pixels. Each has a smooth anatomy of its own (a bump may or may
not stand in the left flank, the right flank and the bottom), common smooth variation, and speckle:
short-ranged, wider laterally with depth, of one of two strengths. What is hidden is therefore
ambiguous in places, correlated with what is seen, and textured.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from echogen.diffusion.denoiser import Denoiser
from echogen.diffusion.schedule import Schedule, read_scheduler

SIDE = 20
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "linear"}  # as the built-in model


@dataclass(frozen=True)
class Mixture:
    """sum_k weight_k N(mean_k, covariance_{group_k}).

    Attributes:
        weights: (K,) float64.
        means: (K, n) float64.
        covariances: (G, n, n) float64.
        group: (K,) which covariance a component has.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray
    group: np.ndarray

    def sample(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """(count, n) draws."""
        component = rng.choice(len(self.weights), size=count, p=self.weights)
        drawn = self.means[component]
        noise = rng.standard_normal(drawn.shape)
        for number, covariance in enumerate(self.covariances):
            mine = self.group[component] == number
            drawn[mine] += noise[mine] @ np.linalg.cholesky(covariance).T
        return drawn

    def posterior(self, y: np.ndarray, keep: np.ndarray) -> "Mixture":
        """Of the hidden pixels, given the kept ones; components below 1e-6 are left out.

        Args:
            y: (n,) the picture; only kept pixels are read.
            keep: (n,) bool.
        """
        means = np.empty((len(self.means), int((~keep).sum())))
        log_weights = np.log(self.weights)
        covariances = []
        for number, c in enumerate(self.covariances):
            mine = self.group == number
            known, cross = c[np.ix_(keep, keep)], c[np.ix_(~keep, keep)]
            gain = np.linalg.solve(known, cross.T).T
            covariances.append(c[np.ix_(~keep, ~keep)] - gain @ cross.T)
            residual = y[keep] - self.means[mine][:, keep]
            means[mine] = self.means[mine][:, ~keep] + residual @ gain.T
            log_weights[mine] += _log_normal(residual, known)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        left = weights > 1e-6
        return Mixture(
            weights[left] / weights[left].sum(),
            means[left],
            np.stack(covariances),
            self.group[left],
        )

    def responsibilities(self, x: np.ndarray) -> np.ndarray:
        """(count, K) p(component | x) of (count, n) pictures."""
        logs = self._logs(x)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """(count,) log p(x) of (count, n) pictures, less n / 2 log(2 pi)."""
        logs = self._logs(x)
        highest = logs.max(axis=1)
        return highest + np.log(np.exp(logs - highest[:, None]).sum(axis=1))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean (n,) and the covariance (n, n)."""
        mean = self.weights @ self.means
        apart = self.means - mean
        of_group = np.bincount(self.group, self.weights, len(self.covariances))
        within = np.tensordot(of_group, self.covariances, axes=1)
        return mean, within + (self.weights[:, None] * apart).T @ apart

    def _logs(self, x: np.ndarray) -> np.ndarray:
        """(count, K) log of weight_k N(x; mean_k, ...)."""
        logs = np.empty((len(x), len(self.weights)))
        for k, (weight, mean) in enumerate(zip(self.weights, self.means, strict=True)):
            logs[:, k] = np.log(weight) + _log_normal(x - mean, self.covariances[self.group[k]])
        return logs


def make_prior(side: int = SIDE) -> Mixture:
    """The prior described above, over side x side pixels."""
    row, col = (g.ravel() / (side - 1) for g in np.mgrid[:side, :side])

    def bump(r: float, c: float, height: float, width: float) -> np.ndarray:
        return height * np.exp(-((row - r) ** 2 + (col - c) ** 2) / (2 * width**2))

    base = (
        -0.2 + bump(0.45, 0.35, 0.5, 0.1) + bump(0.45, 0.65, 0.5, 0.1) - bump(0.5, 0.5, 0.3, 0.15)
    )
    variants = [bump(0.4, 0.08, 0.7, 0.13), bump(0.5, 0.92, 0.7, 0.13), bump(0.9, 0.5, 0.7, 0.13)]
    means = [
        base + sum(v for v, there in zip(variants, chosen, strict=True) if there)
        for chosen in itertools.product((False, True), repeat=3)
    ]
    distance2 = (row[:, None] - row) ** 2 + (col[:, None] - col) ** 2
    smooth = 0.15**2 * np.exp(-distance2 / (2 * 0.25**2))
    speckles = [_speckle(row, col, side, strength) for strength in (0.1, 0.2)]
    covariances = np.stack([smooth + s for s in speckles])
    count = len(means) * len(speckles)
    return Mixture(
        np.full(count, 1.0 / count),
        np.repeat(np.stack(means), len(speckles), axis=0),
        covariances,
        np.tile(np.arange(len(speckles)), len(means)),
    )


def exact_denoiser(prior: Mixture) -> Denoiser:
    """E[x_0 | x_t] of a prior over square pictures, as a model that predicts the clean image."""
    side, schedule, clean = math.isqrt(prior.means.shape[1]), the_schedule(), expectation(prior)

    def network(packed: Tensor, timesteps: Tensor) -> Tensor:
        sigma = schedule.sigma_at(float(timesteps[0]))
        z = packed.flatten(1) * math.sqrt(1.0 + sigma**2)
        return clean(z, sigma).reshape(-1, 1, side, side)

    return Denoiser(network=network, schedule=schedule, prediction_type="sample", clip=None)


def exact_known_denoiser(posterior: Mixture, keep: np.ndarray) -> Denoiser:
    """E[x_0 | x_t, known] of one picture, as a model that is shown what is known.

    Given the known pixels, the hidden ones are a mixture again, whose denoiser is the prior's with
    other numbers; what the network is shown where pixels are known is not looked at.

    Args:
        posterior: of the hidden pixels, `Mixture.posterior`.
        keep: (n,) bool, of a square picture.
    """
    side, schedule, clean = math.isqrt(len(keep)), the_schedule(), expectation(posterior)
    hidden = torch.tensor(np.flatnonzero(~keep))

    def network(packed: Tensor, timesteps: Tensor) -> Tensor:
        sigma = schedule.sigma_at(float(timesteps[0]))
        x = packed[:, :1].flatten(1)
        z = x[:, hidden] * math.sqrt(1.0 + sigma**2)
        return x.index_copy(1, hidden, clean(z, sigma)).reshape(-1, 1, side, side)

    return Denoiser(
        network=network,
        schedule=schedule,
        prediction_type="sample",
        clip=None,
        conditioning="known",
    )


def the_schedule() -> Schedule:
    """Of every denoiser here."""
    return read_scheduler(SCHEDULE).schedule


def expectation(mixture: Mixture) -> Callable[[Tensor, float], Tensor]:
    """E[x_0 | z = x_0 + sigma n] as a function of (B, n) z and sigma.

    Component k's part of the answer is mean_k + C (C + sigma^2)^-1 (z - mean_k), weighted by
    p(k | z). float32, but for the weights, whose exponents are differences of large numbers:
    float64.
    """
    centre = mixture.means.mean(axis=0)
    groups = [
        _Group.of(
            covariance,
            mixture.means[mixture.group == g] - centre,
            mixture.weights[mixture.group == g],
        )
        for g, covariance in enumerate(mixture.covariances)
        if (mixture.group == g).any()
    ]
    shift = torch.tensor(centre, dtype=torch.float32)

    def clean(z: Tensor, sigma: float) -> Tensor:
        z = z - shift
        turned = [z @ group.vectors for group in groups]
        logs = [group.logs(x, sigma) for group, x in zip(groups, turned, strict=True)]
        shares = torch.softmax(torch.cat(logs, dim=1), dim=1).float()
        found = shift.expand_as(z)
        split = shares.split([len(group.means) for group in groups], dim=1)
        for group, x, share in zip(groups, turned, split, strict=True):
            found = found + group.clean(x, share, sigma) @ group.vectors.T
        return found

    return clean


@dataclass(frozen=True)
class _Group:
    """Components of one covariance, turned into its eigenvectors: (n, n), (n,), (k, n), (k,)."""

    vectors: Tensor
    values: Tensor
    means: Tensor
    log_weights: Tensor

    @classmethod
    def of(cls, covariance: np.ndarray, means: np.ndarray, weights: np.ndarray) -> "_Group":
        values, vectors = np.linalg.eigh(covariance)
        return cls(
            torch.tensor(vectors, dtype=torch.float32),
            torch.tensor(values),
            torch.tensor(means @ vectors),
            torch.tensor(np.log(weights)),
        )

    def logs(self, x: Tensor, sigma: float) -> Tensor:
        """(B, k) float64: log of weight N(x; mean, values + sigma^2), up to a common constant."""
        spread = self.values + sigma**2
        x64 = x.double()
        square = (x64**2 / spread).sum(1, keepdim=True) - 2.0 * x64 @ (self.means / spread).T
        square = square + (self.means**2 / spread).sum(1)
        return self.log_weights - 0.5 * (square + torch.log(spread).sum())

    def clean(self, x: Tensor, share: Tensor, sigma: float) -> Tensor:
        """(B, n) sum of share (mean + shrink (x - mean)) over components; share (B, k)."""
        shrink = (self.values / (self.values + sigma**2)).float()
        return (
            share @ (self.means.float() * (1.0 - shrink)) + share.sum(1, keepdim=True) * shrink * x
        )


def masks(side: int = SIDE) -> dict[str, np.ndarray]:
    """(side, side) bool, True where kept: what our moves leave empty, on a square."""
    row, col = np.mgrid[:side, :side] / (side - 1)
    ring = np.maximum(abs(row - 0.5), abs(col - 0.5)) <= 0.33
    return {"flank": col + 0.25 * row < 0.8, "bottom": row < 0.62, "ring": ring}


def _speckle(row: np.ndarray, col: np.ndarray, side: int, strength: float) -> np.ndarray:
    """Covariance of speckle that is wider laterally with depth, and stronger."""
    wide = (1.0 + 1.2 * row) / side
    both = wide[:, None] ** 2 + wide**2
    kernel = np.sqrt(2 * np.outer(wide, wide) / both) * np.exp(-((col[:, None] - col) ** 2) / both)
    kernel *= np.exp(-((row[:, None] - row) ** 2) / (2 * (0.7 / side) ** 2))
    gain = strength * (0.7 + 0.6 * row)
    return np.outer(gain, gain) * (kernel + 0.05 * np.eye(len(row)))


def _log_normal(residual: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """(count,) log N(residual; 0, covariance) of (count, n), less n / 2 log(2 pi)."""
    root = np.linalg.cholesky(covariance)
    solved = solve_triangular(root, residual.T, lower=True)
    return -0.5 * (solved**2).sum(axis=0) - np.log(np.diag(root)).sum()
