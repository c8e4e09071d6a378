"""The steps of COLMAP in a batch, by pycolmap; each writes its result whole or not at all.

usage: colmap.py match IMAGES DATABASE     extract SIFT features and match all pairs of images
       colmap.py map DATABASE IMAGES MODEL the largest model of them

With the program itself, the same is done by colmap feature_extractor, exhaustive_matcher and mapper.
"""

import shutil
import sys
import tempfile
import zlib  # noqa: F401  before pycolmap
from pathlib import Path

import pycolmap


def match(images: Path, database: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".match-", dir=database.parent) as folder:
        work = Path(folder) / "database.db"
        pycolmap.extract_features(
            work, images, extraction_options=pycolmap.FeatureExtractionOptions(use_gpu=False)
        )
        verification = pycolmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = 0
        matching = pycolmap.FeatureMatchingOptions(use_gpu=False)
        pycolmap.match_exhaustive(work, matching, verification_options=verification)
        work.replace(database)


def map_images(database: Path, images: Path, model: Path) -> None:
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.num_threads = options.mapper.num_threads = 1  # with more, two runs differ
    options.min_model_size = 3
    with tempfile.TemporaryDirectory(prefix=".map-", dir=model.parent) as folder:
        work = Path(folder) / "database.db"
        shutil.copy(database, work)  # pycolmap changes a database that it opens
        models = pycolmap.incremental_mapping(work, images, folder, options)
        if not models:
            sys.exit(f"{database}: no model can be mapped; the images overlap too little")
        largest = max(models, key=lambda k: (models[k].num_reg_images(), -k))
        shutil.rmtree(model, ignore_errors=True)
        (Path(folder) / str(largest)).rename(model)


if __name__ == "__main__":
    pycolmap.logging.minloglevel = 2
    step, *paths = sys.argv[1:]
    {"match": match, "map": map_images}[step](*map(Path, paths))
