"""Vocabulary trees, by which COLMAP retrieves the images that look alike."""

from pathlib import Path

import numpy as np

import pycolmap

_ROWS_PER_WORD = 40  # what clustering needs to place a word well
_WORDS = (16, 4096)
_EMBEDDING = 64  # dimensions in which features of one word are compared, as in COLMAP's trees


def build_vocabulary_tree(database_path: Path, output_path: Path, num_threads: int = -1) -> None:
    """Makes a vocabulary tree of the features of a database itself, where no trained one is at hand.

    It knows these images only, which is all that matching them needs; 4096 words at most, of features evenly
    from all images, bound the time.
    """
    with pycolmap.Database.open(database_path) as database:
        ids = sorted(
            image.image_id
            for image in database.read_all_images()
            if database.exists_descriptors(image.image_id)
        )
        share = -(-_ROWS_PER_WORD * _WORDS[1] // max(len(ids), 1))
        rows = []
        for image_id in ids:
            descriptors = database.read_descriptors(image_id).to_float()
            step = max(1, len(descriptors.data) // share)
            rows.append(descriptors.data[::step])
    features = np.concatenate(rows)
    options = pycolmap.VisualIndex.BuildOptions(
        num_visual_words=int(np.clip(len(features) // _ROWS_PER_WORD, *_WORDS)),
        num_iterations=10,
        num_rounds=1,
        num_threads=num_threads,
    )
    index = pycolmap.VisualIndex.create(features.shape[1], _EMBEDDING)
    index.build(options, pycolmap.FeatureDescriptorsFloat(descriptors.type, features))
    index.write(output_path)
