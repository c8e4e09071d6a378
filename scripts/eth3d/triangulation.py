"""Points triangulated at ETH3D's true poses, against its laser scans: accuracy and completeness.

usage: triangulation.py --data FOLDER [--scenes facade ...] [--methods sift ...] [--tag raw|refined|NAME]
                        [--preset NAME] [Group.name=value ...]

Scenes lie in FOLDER as download.py puts them there. A method other than sift is a folder
OUTPUTS/features/SCENE/METHOD with hloc's features.h5, matches.h5 and maybe pairs.txt. ETH3D's own program is
used where --program names it; else our implementation of its definition (multi_view_evaluation.py).
"""

import sys
from pathlib import Path

import numpy as np
from common import arguments, calibration, hloc_files, print_table, scenes_of, values_of, write_results
from multi_view_evaluation import TOLERANCES, Scores, by_program, evaluate, read_scans

import pixcli
from pixcli.adapters.match_input import MatchInput
from pixcli.errors import UserError
from pixcli.options import TriangulationChainOptions
from pixcli.options.fields import build_all


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--program", type=Path, help="ETH3DMultiViewEvaluation")
    args = parser.parse_intermixed_args()
    options = build_all(TriangulationChainOptions, values_of(args))
    rows = []
    for method in args.methods:
        scores: list[Scores] = []
        for scene in scenes_of(args):
            folder, reference = args.data / scene, calibration(args.data / scene)
            matches = MatchInput(**hloc_files(args, scene, method))
            out = args.outputs / "triangulation" / scene / f"{method}_{args.tag}"
            out.parent.mkdir(parents=True, exist_ok=True)
            result = pixcli.triangulate(reference, folder / "images", out, matches, options=options)
            points = np.array([point.xyz for point in result.model().points3D.values()])
            alignment = folder / "dslr_scan_eval" / "scan_alignment.mlp"
            score = (
                by_program(args.program, points, alignment)
                if args.program
                else evaluate(points, read_scans(alignment))
            )
            scores.append(score)
            found = {"points": len(points), "accuracy": score.accuracy, "completeness": score.completeness}
            write_results(args, "triangulation", scene, method, found)
            rows.append(row(f"{method} {args.tag}", scene, [score]))
        rows.append(row(f"{method} {args.tag}", "mean", scores))
    names = [f"{what} {100 * t:g} cm" for what in ("accuracy", "completeness") for t in TOLERANCES]
    print_table("Triangulation, %", ["method", "scene", *names], rows)


def row(method: str, scene: str, scores: list[Scores]) -> list[str]:
    values = [
        [getattr(s, what)[t] for s in scores] for what in ("accuracy", "completeness") for t in TOLERANCES
    ]
    return [method, scene, *(f"{100 * np.mean(value):.2f}" for value in values)]


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"triangulation.py: {error}")
