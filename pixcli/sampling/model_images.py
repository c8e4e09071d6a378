"""The images of a model on disk."""

from pathlib import Path

from pixcli.errors import UserError
from pixcli.io.images import check_image_size
from pixcli.sampling.streaming import ImageFile

import pycolmap


def image_files(
    model: pycolmap.Reconstruction, image_path: Path, allow_missing: bool = False
) -> list[ImageFile]:
    """The registered images, by ascending id; those that are not on disk are marked as missing.

    Raises:
        UserError: an image is missing and must not be, or is of another size than its camera.
    """
    if not image_path.is_dir():
        raise UserError(f"there is no folder {image_path}: check --image_path")
    files = []
    for image_id in sorted(model.reg_image_ids()):
        image = model.images[image_id]
        path, size = image_path / image.name, (image.camera.width, image.camera.height)
        missing = not path.is_file()
        if not missing:
            check_image_size(path, size)
        elif not allow_missing:
            raise UserError(
                f"{path}: no such image, but the model has it; check --image_path, or set "
                "--FeaturemetricBundleAdjustment.allow_missing_images 1"
            )
        files.append(ImageFile(image.name, path, size, missing))
    if all(file.missing for file in files):
        raise UserError(f"{image_path} holds none of the images of the model: check --image_path")
    return files
