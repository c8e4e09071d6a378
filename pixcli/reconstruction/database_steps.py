"""The first steps of a run: a database with features and verified matches, from wherever they come."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixcli.adapters.hloc_import import import_features
from pixcli.adapters.verification import match_counts, verify_matches
from pixcli.errors import UserError
from pixcli.io.database import copy_database
from pixcli.io.image_folder import readable_images
from pixcli.reconstruction import colmap_steps as colmap
from pixcli.reconstruction.chain import Chain
from pixcli.reconstruction.reference import copy_features, write_reference

import pycolmap


def make_database(chain: Chain, names: Sequence[str], reference: pycolmap.Reconstruction | None) -> None:
    """Features and verified matches of these images, under the ids of the reference, if there is one."""
    options, matcher = chain.options, chain.options.reconstruction.matcher
    extraction = (options.image_reader, options.feature_extraction, options.sift_extraction)
    matching = (
        options.feature_matching,
        options.sift_matching,
        options.two_view_geometry,
        getattr(options, f"{matcher}_matching"),
    )
    inputs = {"files": dict(_hashes(chain, names)), "seed": chain.seed}
    make = _DatabaseSteps(chain, names, reference)
    outputs = [make.database]
    if chain.input.matches.is_hloc:
        importing = (options.image_reader, options.two_view_geometry)
        chain.step("import", importing, outputs, make.from_hloc, **inputs)
    elif chain.input.matches.database_path is not None:
        chain.step(
            "database", (*extraction, *matching), outputs, make.from_database, **inputs, matcher=matcher
        )
    else:
        chain.step("features", extraction, outputs, make.extract, **inputs)
        chain.step("matches", matching, outputs, make.match, matcher=matcher)


def _hashes(chain: Chain, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Hashes of all files that the database is made from."""
    for name in names:
        yield name, chain.steps.hash_of(chain.input.image_path / name)
    for path in chain.input.matches.paths.values():
        yield str(path), chain.steps.hash_of(path)
    if chain.input.reference_path is not None:
        for path in sorted(chain.input.reference_path.glob("*.*")):
            yield str(path), chain.steps.hash_of(path)


@dataclass(frozen=True)
class _DatabaseSteps:
    """The work of the steps; `resume` says that what an interrupted run left may be used."""

    chain: Chain
    names: Sequence[str]
    reference: pycolmap.Reconstruction | None

    @property
    def database(self) -> Path:
        return self.chain.folder / "database.db"

    def extract(self, resume: bool) -> Mapping[str, Any]:
        if not resume or not self.database.is_file():
            self._new_database()
        skip = self.chain.options.reconstruction.skip_unreadable_images
        with self.chain.progress.phase("check images", len(self.names)) as update:
            readable = readable_images(self.chain.input.image_path, self.names, skip, update)
        return self._extract(readable)

    def match(self, resume: bool) -> Mapping[str, Any]:
        if not resume:
            colmap.clear_matches(self.database)
        return _checked(self._match(self.chain.figures["features"]["images"]))

    def from_database(self, resume: bool) -> Mapping[str, Any]:
        """What the user's database lacks of features, matches and their verification is made."""
        is_matched = self._copy_database(resume)
        stored, lacking = colmap.images_without_features(self.database)
        figures: Mapping[str, Any] = {"images": len(stored or self.names)}
        if lacking or not stored:
            figures = self._extract(stored or self.names)
        counts: dict[str, Any] = match_counts(self.database)
        if lacking or not is_matched:
            counts = self._match(figures["images"])
        elif counts["verified_pairs"] == 0:
            counts = self._verify()
        return {**figures, **_checked(counts)}

    def from_hloc(self, resume: bool) -> Mapping[str, Any]:
        self._new_database()
        given, reader = self.chain.input, self.chain.options.image_reader
        work = (
            self.database,
            given.image_path,
            self.names,
            given.matches,
            reader,
            self.reference is not None,
        )
        with self.chain.progress.phase("import"):
            figures = self.chain.colmap("importing features", import_features, *work)
        return {**figures, **_checked(self._verify())}

    def _new_database(self) -> None:
        colmap.remove(self.database)
        pycolmap.Database.open(self.database).close()
        if self.reference is not None:
            write_reference(self.reference, self.database)

    def _copy_database(self, resume: bool) -> bool:
        """Start from the user's database, or what an interrupted run made of it; whether it has matches."""
        path = self.chain.input.matches.database_path
        assert path is not None
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=self.chain.folder) as temporary:
            copied = Path(temporary) / "database.db"
            copy_database(path, copied)
            counts = match_counts(copied)
            is_matched = counts["matches"] > 0 or counts["verified_pairs"] > 0
            if is_matched or not resume or not self.database.is_file():
                self._new_database()
                if self.reference is None:
                    copied.replace(self.database)
                else:
                    copy_features(copied, self.database)
        return is_matched

    def _extract(self, names: Sequence[str]) -> dict[str, Any]:
        path, options = self.chain.input.image_path, self.chain.options
        work = (colmap.extract_features, self.database, path, names, options, self.chain.seed)
        with self.chain.progress.phase("extract", len(names)) as update:
            return self.chain.colmap("extracting features", *work, update=update)

    def _match(self, num_images: int) -> dict[str, Any]:
        work = (colmap.match_images, self.database, self.chain.options, self.chain.seed)
        parts = colmap.matching_parts(self.chain.options, num_images)
        with self.chain.progress.phase("match", parts) as update:
            figures = self.chain.colmap("matching", *work, update=update)
            update(parts)
        return figures

    def _verify(self) -> dict[str, Any]:
        work = (verify_matches, self.database, self.chain.options.two_view_geometry, self.chain.seed)
        with self.chain.progress.phase("verify"):
            return self.chain.colmap("verifying", *work)


def _checked(counts: dict[str, Any]) -> Mapping[str, Any]:
    if counts["verified_pairs"] == 0:
        raise UserError(
            f"no pair of images has verified matches ({counts['pairs']} pairs have {counts['matches']} raw "
            "ones): do the images show the same scene? Another --matcher or a lower "
            "--TwoViewGeometry.min_num_inliers may find some"
        )
    return counts
