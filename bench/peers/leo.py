"""LEO on features (docs/mathematics.md) in JAX: the objective, and the loss of a meta-batch."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax


@dataclasses.dataclass(frozen=True)
class LeoObjective:
    ways: int = 5
    dim: int = 640
    latent: int = 64
    latent_steps: int = 5
    finetune_steps: int = 5
    latents: str = "per_example"
    kl: str = "sampled"
    kl_weight: float = 1e-3
    encoder_penalty: float = 1e-9
    l2_weight: float = 1e-8
    orthogonality_weight: float = 1e-3
    first_order: bool = False
    algorithm: str = "leo"
    network: str = "features"

    @property
    def steps(self):
        return self.latent_steps + self.finetune_steps

    @staticmethod
    def from_tables(tables):
        return LeoObjective(**tables["leo"],
                            first_order=tables["inner"].get("order", "second") == "first")

    def latents_of(self, support):
        return support // self.ways if self.latents == "per_example" else 1

    def noise_shapes(self, tasks, support):
        rows = (self.ways, self.latents_of(support))
        return ((tasks, *rows, self.latent),
                (tasks, self.latent_steps + 1, *rows, self.dim))

    def parameter_shapes(self):
        two = 2 * self.latent
        return {"encoder.weight": (self.latent, self.dim),
                **{f"relation.{i}.weight": (two, two) for i in range(3)},
                "decoder.weight": (2 * self.dim, self.latent),
                "latent_lr": (self.latent,), "finetune_lr": (self.dim,)}


def deviation(u, offset):
    return jnp.maximum(jnp.exp(u) - (1 - offset), 1e-10)


def task_loss(objective, theta, episode, noise):
    """Returns the loss of one task, without the penalties on the meta-parameters.

    noise: (encoder [N, C, L], decoder [latent_steps + 1, N, C, dim]), with N classes, C latents per
    class and L numbers per latent.
    """
    sx, sy, qx, qy = episode
    noise_encoder, noise_decoder = noise
    ways, latent = objective.ways, objective.latent
    codes = sx @ theta["encoder.weight"].T
    n = codes.shape[0]
    pairs = jnp.concatenate([jnp.repeat(codes[:, None], n, 1), jnp.repeat(codes[None], n, 0)], -1)
    hidden = jnp.maximum(pairs @ theta["relation.0.weight"].T, 0)
    hidden = jnp.maximum(hidden @ theta["relation.1.weight"].T, 0)
    related = (hidden @ theta["relation.2.weight"].T).mean(1)
    statistics = related.reshape(ways, n // ways, 2 * latent).mean(1)
    mean, std = statistics[:, :latent], deviation(statistics[:, latent:], 0.0)
    z = start = mean[:, None] + std[:, None] * noise_encoder
    offset = (2.0 / (ways + objective.dim)) ** 0.5

    def decode(z, eps):
        out = z @ theta["decoder.weight"].T
        return out[..., :objective.dim] + deviation(out[..., objective.dim:], offset) * eps

    def losses(w, x, y):
        logits = jnp.einsum("rd,ncd->rnc", x, w).mean(-1)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)[:, 0]

    stop = lax.stop_gradient if objective.first_order else lambda g: g
    in_latents = jax.grad(lambda z, eps: losses(decode(z, eps), sx, sy).sum())
    in_weights = jax.grad(lambda w: losses(w, sx, sy).sum())
    for k in range(objective.latent_steps):
        z = z - theta["latent_lr"] * stop(in_latents(z, noise_decoder[k]))
    w = decode(z, noise_decoder[objective.latent_steps])
    for _ in range(objective.finetune_steps):
        w = w - theta["finetune_lr"] * stop(in_weights(w))
    if objective.kl == "sampled":
        kl = (-jnp.log(std)[:, None] - noise_encoder ** 2 / 2 + start ** 2 / 2).mean()
    else:
        kl = (-jnp.log(std) + (std ** 2 + mean ** 2 - 1) / 2).mean()
    penalty = jnp.square(lax.stop_gradient(z) - start).mean()
    return losses(w, qx, qy).mean() + objective.kl_weight * kl + objective.encoder_penalty * penalty


def penalties(objective, theta):
    l2 = sum(jnp.square(w).sum() / 2 for name, w in theta.items() if name.endswith("weight"))
    columns = theta["decoder.weight"].T
    unit = columns / jnp.linalg.norm(columns, axis=1, keepdims=True)
    off = jnp.square(unit @ unit.T - jnp.eye(len(unit))).mean()
    return objective.l2_weight * l2 + objective.orthogonality_weight * off


def meta_loss(objective, theta, batch, noise, mode):
    task = lambda data: task_loss(objective, theta, *data)
    data = (tuple(batch), tuple(noise))
    losses = jax.vmap(task)(data) if mode == "vmap" else lax.map(task, data)
    return losses.mean() + penalties(objective, theta)
