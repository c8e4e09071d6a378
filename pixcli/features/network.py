"""Networks in torch: where they run, how exactly, and how many tiles at a time."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.features.model import FeatureModel

log = logging.getLogger(__name__)

TOLERANCE = 0.02
"""Of reduced precision against float, root mean square, in deviations of a level's values."""

_SHARE = 0.6  # of the free memory of a GPU, for a batch
_MAX_BATCH = 32

Maps = list[NDArray[np.float32]]


class NetworkModel(FeatureModel):
    """Base of models in torch: they give `maps`, this class the rest.

    Batches of tiles run on a GPU in half precision, single tiles on the CPU in bfloat16 where it has
    instructions for that; in float where the network then loses more than TOLERANCE. Images and weights lie
    channels last, which oneDNN and tensor cores are made for.
    """

    default_options: ClassVar[Mapping[str, Any]] = {
        "device": "auto",
        "gpu_index": -1,
        "precision": "auto",
        "num_threads": -1,
    }
    color = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.device = device_of(options["device"], options["gpu_index"])
        self.batched = self.device.type == "cuda"
        self._dtype: torch.dtype | None = None  # decided by the first image
        self._pixels = 0  # of a batch; 0: not known yet
        if options["num_threads"] > 0:
            torch.set_num_threads(options["num_threads"])

    @abstractmethod
    def maps(self, x: torch.Tensor) -> Sequence[torch.Tensor]:
        """(B, C, H // stride, W // stride) of each level, from (B, 3, H, W) RGB in 0..1, channels last."""

    @abstractmethod
    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Puts the weights there, made anew from those in float."""

    def forward(self, image: NDArray[np.float32]) -> Maps:
        """The maps of all levels, float32."""
        return next(self.forward_all([image]))

    def forward_all(self, images: Iterable[NDArray[np.float32]]) -> Iterator[Maps]:
        """The maps of each image; on a GPU, images of one size that follow each other make a batch."""
        batch: list[NDArray[np.float32]] = []
        for image in images:
            if batch and (image.shape != batch[0].shape or len(batch) >= self._batch_size(image)):
                yield from self._run(batch)
                batch = []
            batch.append(image)
        if batch:
            yield from self._run(batch)

    def _batch_size(self, image: NDArray[np.float32]) -> int:
        if not self.batched:
            return 1
        return int(np.clip(self._pixels // (image.shape[0] * image.shape[1]), 1, _MAX_BATCH))

    def _run(self, batch: Sequence[NDArray[np.float32]]) -> Iterator[Maps]:
        """In halves where a GPU has no room for all; on the CPU at last, if device is auto."""
        if self._dtype is None:
            self._choose_precision()
        height, width = batch[0].shape[:2]
        try:
            made = self._forward(np.stack(batch))
        except torch.cuda.OutOfMemoryError:
            made = None
            torch.cuda.empty_cache()
        if made is not None:
            if self.batched and not self._pixels:
                self._pixels = self._room_for(height * width * len(batch))
            for k in range(len(batch)):
                yield [level[k] for level in made]
            return
        if len(batch) > 1:
            half = len(batch) // 2
            self._pixels = half * height * width
            log.info("out of GPU memory: batches of %d tiles instead of %d", half, len(batch))
            yield from self._run(batch[:half])
            yield from self._run(batch[half:])
            return
        if self.options["device"] != "auto":
            raise UserError(
                f"out of GPU memory with a single tile of {width}x{height} pixels: lower "
                "--DenseFeatures.tile_size, or set --DenseFeatures.device to auto or cpu"
            )
        log.warning("out of GPU memory with a single tile of %dx%d pixels: on with the CPU", width, height)
        self.device, self.batched = torch.device("cpu"), False
        self._choose_precision()
        yield from self._run(batch)

    def _forward(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The maps of each level, (B, C, h, w), of images (B, H, W, 3)."""
        gpu = self.device.type == "cuda"
        with torch.inference_mode():
            x = torch.from_numpy(images)
            x = (x.pin_memory() if gpu else x).to(self.device, non_blocking=True)
            # A view with the channels moved is channels last as it lies.
            made = self.maps((x / 255).to(self._dtype).permute(0, 3, 1, 2))
            if not gpu:
                return [values.float().numpy() for values in made]
            copies = [torch.empty_like(values, device="cpu", pin_memory=True) for values in made]
            for copy, values in zip(copies, made, strict=True):
                copy.copy_(values, non_blocking=True)
            torch.cuda.synchronize(self.device)
            return [copy.float().numpy() for copy in copies]

    def _room_for(self, pixels: int) -> int:
        """Pixels of a batch that fit, from what the first, of so many, took."""
        free = torch.cuda.mem_get_info(self.device)[0] + torch.cuda.memory_reserved(self.device)
        taken = max(torch.cuda.max_memory_allocated(self.device), 1)
        return int(_SHARE * free / taken * pixels)

    def _choose_precision(self) -> None:
        """Reduced where the hardware gains by it and a made-up image shows that the network bears it."""
        reduced = _fast_dtype(self.device) if self.options["precision"] == "auto" else torch.float32
        self._dtype = torch.float32
        self.move(self.device, torch.float32)
        if reduced == torch.float32:
            return
        image = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype(np.float32)
        image = image.repeat(8, 1).repeat(8, 2)
        exact = self._forward(image)
        self._dtype = reduced
        self.move(self.device, reduced)
        loss = max(
            float(np.sqrt(np.mean((a - b) ** 2)) / max(np.std(a), 1e-12))
            for a, b in zip(exact, self._forward(image), strict=True)
        )
        if loss <= TOLERANCE:
            self.tolerance = 4 * TOLERANCE  # of the single value that differs most
            return
        log.info("%s would lose %.2g of the features' deviation: computed in float", reduced, loss)
        self._dtype = torch.float32
        self.move(self.device, torch.float32)


def device_of(name: str, index: int) -> torch.device:
    """The device that the options name. Raises UserError if there is none."""
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if name == "cuda":
            raise UserError("DenseFeatures.device is cuda, but torch finds no GPU: set it to auto or cpu")
        log.info("torch finds no GPU: features are computed on the CPU")
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise UserError(f"DenseFeatures.gpu_index is {index}, but there are {torch.cuda.device_count()} GPUs")
    return torch.device("cuda", max(index, 0))


def _fast_dtype(device: torch.device) -> torch.dtype:
    """The precision that the device is made for: not measured, so that runs on one machine agree."""
    if device.type == "cuda":
        return torch.float16
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bfloat16 else torch.float32
