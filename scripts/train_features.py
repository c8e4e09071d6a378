#!/usr/bin/env python3
"""Trains the weights of the feature model `compact` on any folder of photographs.

    scripts/train_features.py PHOTOS --output pixcli/features/compact.npz [--steps 3600]

A pair is two views of a photograph, related by a homography, each under its own light: shadows with edges,
tone curves, colour casts, highlights, darkness with sensor noise, blur and JPEG. The loss is what the product
does: unrolled Gauss-Newton alignment of nodes inside a local affine warp, judged by the error of the position
and by how well its predicted covariance tells that error, beside a contrastive term for the basin.
Interrupted, it resumes from its checkpoint (OUTPUT with the suffix .checkpoint) when it is called again with
the same arguments.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from training_pairs import SIZE, make_pair

from pixcli.features.compact import LAYERS, OFFSET

Tensor = torch.Tensor

RADIUS, STEP, WINDOW = 4, 2.0, 0.55  # of the support: nodes, pixels, radii
STRIDE = int(np.prod([layer.stride for layer in LAYERS]))
MARGIN = 20  # pixels from the border within which no keypoint lies
ITERATIONS = 4


class Network(torch.nn.Module):
    """The torch twin of pixcli.features.compact; grey images (B, 1, H, W) in 0..255 give (B, C, h, w)."""

    def __init__(self) -> None:
        super().__init__()
        channels, layers = 1, []
        for layer in LAYERS:
            layers.append(torch.nn.Conv2d(channels, layer.channels, layer.size, layer.stride, layer.padding))
            channels = layer.channels
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.log(image / 255 + OFFSET)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def sample(maps: Tensor, index: Tensor, xy: Tensor) -> Tensor:
    """(n, k, C) of maps (B, C, h, w) at xy (n, k, 2), pixels of image `index` (n,), by the cubic B-spline."""
    batch, channels, height, width = maps.shape
    uv = xy / STRIDE - 0.5
    cell = torch.floor(uv)
    f = uv - cell
    w = [(1 - f) ** 3 / 6, (3 * f**3 - 6 * f**2 + 4) / 6, (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6, f**3 / 6]
    low, high = w[0] + w[1], w[2] + w[3]
    # Two taps along an axis are one linear sample between them.
    at = [cell - 1 + w[1] / low, cell + 1 + w[3] / high]
    weight = [low, high]
    # Images side by side, so that one call samples them all.
    sheet = maps.permute(1, 2, 0, 3).reshape(1, channels, height, batch * width)
    shift = (index * width)[:, None]
    total = 0
    for i in range(2):
        for j in range(2):
            u = at[i][..., 0].clamp(0, width - 1) + shift
            v = at[j][..., 1]
            grid = torch.stack([(u + 0.5) * 2 / (batch * width) - 1, (v + 0.5) * 2 / height - 1], -1)
            values = F.grid_sample(sheet, grid[None], "bilinear", "border", align_corners=False)[0]
            total = total + values.permute(1, 2, 0) * (weight[i][..., 0] * weight[j][..., 1])[..., None]
    return total


def nodes() -> tuple[Tensor, Tensor]:
    """(k, 2) offsets in pixels and (k,) weights that sum to 1."""
    axis = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    weight = torch.exp(-(x**2 + y**2) / (2 * (WINDOW * RADIUS) ** 2)).flatten()
    return torch.stack([x.flatten(), y.flatten()], 1) * STEP, weight / weight.sum()


class Template:
    """Nodes around points (n, 2) of the first views, and what inverse-compositional Gauss-Newton needs."""

    def __init__(self, maps: Tensor, index: Tensor, xy: Tensor) -> None:
        self.offsets, self.weight = nodes()
        places = xy[:, None] + self.offsets
        eps = 0.5
        value = sample(maps, index, places)
        gradient = [
            (sample(maps, index, places + d) - sample(maps, index, places - d)) / (2 * eps)
            for d in (torch.tensor([eps, 0.0]), torch.tensor([0.0, eps]))
        ]
        w = self.weight[None, :, None]
        value = value - (w * value).sum(1, keepdim=True)
        power = (w * value**2).sum(1, keepdim=True)
        unit = torch.rsqrt(power.sum(2, keepdim=True) + 1e-6)
        value, gradient = value * unit, [g * unit for g in gradient]
        self.deviation = torch.sqrt((w * value**2).sum(1, keepdim=True) + 1e-8)
        self.value = value / self.deviation
        x, y = self.offsets[:, 0, None], self.offsets[:, 1, None]
        gx, gy = gradient
        columns = torch.stack([gx, gy, gx * x, gx * y, gy * x, gy * y], -1)  # (n, k, C, 6)
        wj = w[..., None]
        columns = columns - (wj * columns).sum(1, keepdim=True)
        along = (wj * columns * self.value[..., None]).sum(1, keepdim=True)
        self.jacobian = columns - along * self.value[..., None]
        hessian = torch.einsum("k,nkcp,nkcq->npq", self.weight, self.jacobian, self.jacobian)
        damping = torch.tensor([1e-4, 1e-4, *[1e-3 * (RADIUS * STEP) ** 2 * 0.25] * 4])
        self.inverse = torch.linalg.inv(hessian + torch.diag(damping))

    def compare(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Step (n, 6), correlation (n,) and covariance of the position (n, 2, 2) for samples (n, k, C)."""
        w = self.weight[None, :, None]
        values = values - (w * values).sum(1, keepdim=True)
        deviation = torch.sqrt((w * values**2).sum(1, keepdim=True) + 1e-8)
        values = values / deviation
        correlations = (w * values * self.value).sum(1, keepdim=True)
        correlation = (self.deviation**2 * correlations).sum((1, 2))
        residual = self.deviation * (values - correlations * self.value)
        size = residual.square().sum(2).add(1e-8).sqrt()
        limit = 2 * (self.weight * size).sum(1, keepdim=True).detach()
        robust = torch.where(size > limit, limit / size, torch.ones_like(size)) * self.weight
        scores = torch.einsum("nk,nkcp,nkc->nkp", robust, self.jacobian, residual)
        gain = correlation.clamp_min(0.3)
        step = torch.einsum("npq,nq->np", self.inverse, scores.sum(1)) / (gain * robust.sum(1))[:, None]
        influence = torch.einsum("npq,nkq->nkp", self.inverse[:, :2], scores) / gain[:, None, None]
        side = 2 * RADIUS + 1
        field = influence.transpose(1, 2).reshape(-1, 1, side, side)
        kernel = torch.tensor([0.5, 1, 0.5])
        smooth = F.conv2d(field, (kernel[:, None] * kernel).view(1, 1, 3, 3) / 1.5, padding=2)
        smooth = smooth.reshape(len(scores), 2, -1)
        return step, correlation, smooth @ smooth.transpose(1, 2)


def align(
    maps: tuple[Tensor, Tensor], index: Tensor, source: Tensor, start: Tensor, linear: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(position, correlation, covariance) before each iteration and after the last."""
    template = Template(maps[0], index, source)
    xy, history = start, []
    for k in range(ITERATIONS + 1):
        places = xy[:, None] + torch.einsum("nab,kb->nka", linear, template.offsets)
        step, correlation, covariance = template.compare(sample(maps[1], index, places))
        history.append((xy, correlation, linear @ covariance @ linear.transpose(1, 2)))
        if k == ITERATIONS:
            break
        length = step[:, :2].norm(dim=1, keepdim=True)
        largest = step[:, 2:].abs().amax(1, keepdim=True)
        step = step * torch.minimum(1.5 / length.clamp_min(1.5), 0.3 / largest.clamp_min(0.3))
        inverse = torch.linalg.inv(torch.eye(2) + step[:, 2:].reshape(-1, 2, 2))
        linear = linear @ inverse
        xy = xy - torch.einsum("nab,nb->na", linear, step[:, :2])
    return history


def apply_homography(h: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Images (n, 2) of points and the local linear maps (n, 2, 2), for homographies (n, 3, 3)."""
    p = torch.einsum("nab,nb->na", h, torch.cat([xy, torch.ones_like(xy[:, :1])], 1))
    out = p[:, :2] / p[:, 2:]
    return out, (h[:, :2, :2] - out[:, :, None] * h[:, 2:, :2]) / p[:, 2:, None]


def choose_points(grey: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """(count, 2) places with texture in two directions, as detectors choose them, in pixels."""
    gy, gx = torch.gradient(torch.log(grey / 255 + OFFSET))
    moments = F.avg_pool2d(torch.stack([gx * gx, gx * gy, gy * gy])[None], 9, 1, 4)[0]
    xx, xy, yy = moments
    least = (xx + yy) / 2 - torch.sqrt((xx - yy) ** 2 / 4 + xy * xy)
    candidates = rng.uniform(MARGIN, SIZE - MARGIN, (4 * count, 2)).astype(np.float32)
    score = least[candidates[:, 1].astype(int), candidates[:, 0].astype(int)].numpy()
    return torch.from_numpy(candidates[np.argsort(-score, kind="stable")[:count]])


def contrastive(
    maps: tuple[Tensor, Tensor], index: Tensor, source: Tensor, target: Tensor, rng: np.random.Generator
) -> Tensor:
    """How hard the centre's features are to tell from those 2 to 10 pixels away in the other view."""
    angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, (len(source), 16)).astype(np.float32))
    length = torch.from_numpy(rng.uniform(2, 10, (len(source), 16)).astype(np.float32))
    offsets = torch.stack([torch.cos(angle), torch.sin(angle)], -1) * length[..., None]
    places = torch.cat([target[:, None], target[:, None] + offsets], 1)
    a = F.normalize(sample(maps[0], index, source[:, None]), dim=2)
    b = F.normalize(sample(maps[1], index, places), dim=2)
    return F.cross_entropy((a * b).sum(2) * 10, torch.zeros(len(source), dtype=torch.long))


def run_batch(
    network: Network, photos: list[Tensor], rng: np.random.Generator, pairs: int, points: int
) -> dict[str, Tensor]:
    """Losses and errors of one batch."""
    views, homographies, index, source = [], [], [], []
    for k in range(pairs):
        pair, h = make_pair(photos, rng)
        views.append(pair)
        homographies.append(torch.from_numpy(h.astype(np.float32)).expand(points, 3, 3))
        index.append(torch.full((points,), k))
        source.append(choose_points(pair[0], points, rng))
    images = torch.stack(views)
    all_maps = network(images.reshape(-1, 1, SIZE, SIZE))
    all_maps = all_maps.reshape(pairs, 2, *all_maps.shape[1:])
    maps = (all_maps[:, 0], all_maps[:, 1])
    rows, xy, h = torch.cat(index), torch.cat(source), torch.cat(homographies)
    target, linear = apply_homography(h, xy)
    inside = ((target > MARGIN) & (target < SIZE - MARGIN)).all(1)
    rows, xy, target, linear = rows[inside], xy[inside], target[inside], linear[inside]

    def noise(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    start = target + noise(len(xy), 2) * torch.from_numpy(
        rng.uniform(0.2, 1.5, (len(xy), 1)).astype(np.float32)
    )
    guess = linear @ (torch.eye(2) + 0.08 * noise(len(xy), 2, 2))
    history = align(maps, rows, xy, start, guess)
    errors = [(position - target).norm(dim=1) for position, _, _ in history]
    position = sum(
        0.7 ** (ITERATIONS - k) * torch.log1p((errors[k] / 0.1) ** 2).mean() for k in range(1, ITERATIONS + 1)
    ) / sum(0.7 ** (ITERATIONS - k) for k in range(1, ITERATIONS + 1))
    last, correlation, covariance = history[-1]
    covariance = covariance + 4e-4 * torch.eye(2)
    distance = torch.einsum("na,nab,nb->n", last - target, torch.linalg.inv(covariance), last - target)
    likelihood = (3 * torch.log1p(distance / 3) + torch.logdet(covariance)).mean()
    contrast = contrastive(maps, rows, xy, target, rng)
    return {
        "loss": position + 0.05 * likelihood + 0.05 * contrast,
        "position": position.detach(),
        "likelihood": likelihood.detach(),
        "contrast": contrast.detach(),
        "start": errors[0].detach(),
        "error": errors[-1].detach(),
        "deviation": (covariance.diagonal(dim1=1, dim2=2).sum(1) / 2).sqrt().detach(),
        "correlation": correlation.detach(),
    }


def load_photos(folder: Path) -> list[Tensor]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    photos = []
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
        if min(pixels.shape[:2]) >= 2.2 * SIZE:
            photos.append(torch.from_numpy(pixels).permute(2, 0, 1).contiguous())
    if len(photos) < 2:
        raise SystemExit(f"{folder}: needs at least two photographs of {int(2.2 * SIZE)} pixels or more")
    return photos


def validate(network: Network, photos: list[Tensor], pairs: int) -> str:
    rng = np.random.default_rng(1)
    with torch.no_grad():
        parts = [run_batch(network, photos, rng, 1, 64) for _ in range(pairs)]

    def join(key: str) -> Tensor:
        return torch.cat([part[key] for part in parts])

    error, deviation = join("error"), join("deviation")
    trusted = (deviation < 0.3) & (join("correlation") > 0.8)
    good, trusted_good = (100 * (e < 0.5).float().mean() for e in (error, error[trusted]))
    return (
        f"median {error.median():.3f} px from {join('start').median():.3f}, {good:.1f} % below 0.5 px; "
        f"trusted {100 * trusted.float().mean():.1f} %, of these median {error[trusted].median():.3f}, "
        f"{trusted_good:.1f} % below 0.5 px; median error / deviation {(error / deviation).median():.2f}"
    )


def learning_rate(step: int, progress: float) -> float:
    """Rises over the first steps and falls to almost nothing at the end."""
    return float(2e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * np.cos(np.pi / 2 * progress) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, help="folder of photographs, searched with its subfolders")
    parser.add_argument("--output", type=Path, required=True, help="the weights (.npz)")
    parser.add_argument("--steps", type=int, default=3600, help="that the learning rate falls over")
    parser.add_argument("--pairs", type=int, default=4, help="pairs a step")
    parser.add_argument("--points", type=int, default=48, help="keypoints a pair")
    parser.add_argument("--validation_pairs", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    photos = load_photos(args.photos)
    held_out, used = photos[::10], [photo for k, photo in enumerate(photos) if k % 10]
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=1e-4)
    checkpoint = args.output.with_suffix(".checkpoint")
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first, spent = state["step"], state["seconds"]
        print(f"resuming at step {first}", flush=True)
    began = time.monotonic() - spent
    curve: list[float] = []
    for step in range(first, args.steps + 1):
        seconds = time.monotonic() - began
        done = step >= args.steps
        if step % 200 == 0 or done:
            report = validate(network, held_out, args.validation_pairs)
            print(f"step {step} at {seconds / 60:.1f} min: {report}", flush=True)
            torch.save(
                {
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                    "seconds": seconds,
                },
                checkpoint,
            )
            arrays = {}
            for k, layer in enumerate(network.layers):
                arrays[f"weight{k}"] = layer.weight.detach().permute(2, 3, 1, 0).contiguous().numpy()
                arrays[f"bias{k}"] = layer.bias.detach().numpy()
            np.savez(args.output, **arrays)
        if done:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, step / args.steps)
        result = run_batch(network, used, np.random.default_rng([args.seed, step]), args.pairs, args.points)
        optimizer.zero_grad()
        result["loss"].backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        curve.append(float(result["position"]))
        if step % 50 == 49:
            print(
                f"step {step + 1}: position loss {np.mean(curve[-50:]):.4f}, {seconds / 60:.1f} min",
                flush=True,
            )


if __name__ == "__main__":
    main()
