#include "bindings/references.h"

#include <optional>
#include <tuple>

#include "bindings/arrays.h"
#include "bindings/poll.h"
#include "core/reference_targets.h"
#include "core/references.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

using Nodes = std::vector<std::array<double, 2>>;

FeatureLevel LevelOf(const py::array& patches, const Array<int32_t>& corners, const Array<double>& scales,
                     const Array<int64_t>& rows) {
  Require(patches.ndim() == 4, "expected patches (m, height, width, channels)");
  for (const py::array& array : {py::array(corners), py::array(scales)}) {
    Require(array.ndim() == 2 && array.shape(0) == patches.shape(0) && array.shape(1) == 2,
            "corners and scales must have the shape (m, 2)");
  }
  Require(rows.ndim() == 1, "rows must have the shape (n,)");
  for (int64_t k = 0; k < rows.size(); ++k) {
    Require(rows.at(k) >= -1 && rows.at(k) < patches.shape(0), "a row is outside of the patches");
  }
  return {StorageOf(patches), patches.data(), patches.shape(0), patches.shape(1), patches.shape(2),
          patches.shape(3),   corners.data(), scales.data(),    rows.data()};
}

py::dict ReferencesOfArrays(const Array<double>& xy, const Array<int64_t>& point_ptr,
                            const py::array& patches, const Array<int32_t>& corners,
                            const Array<double>& scales, const Array<int64_t>& rows, const Nodes& nodes,
                            const std::string& mode, bool l2_normalize, bool ncc_normalize, double loss_scale,
                            int max_iterations, bool keep_observations, int num_threads, py::object poll) {
  const FeatureLevel level = LevelOf(patches, corners, scales, rows);
  const int64_t n = rows.size();
  Require(xy.ndim() == 2 && xy.shape(0) == n && xy.shape(1) == 2, "xy must have the shape (n, 2)");
  Require(point_ptr.ndim() == 1 && point_ptr.size() > 0 && point_ptr.at(0) == 0 &&
              point_ptr.at(point_ptr.size() - 1) == n,
          "point_ptr must rise from 0 to n");
  for (int64_t p = 1; p < point_ptr.size(); ++p) {
    Require(point_ptr.at(p) >= point_ptr.at(p - 1), "point_ptr must rise from 0 to n");
  }
  const ReferenceProblem problem{level, xy.data(), point_ptr.size() - 1, point_ptr.data()};
  ReferenceOptions options;
  options.interpolation = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  options.loss.scale = loss_scale;
  options.max_iterations = max_iterations;
  options.keep_observations = keep_observations;
  options.num_threads = num_threads;
  ReferenceResult result;
  PythonPoll python_poll(std::move(poll));
  {
    const py::gil_scoped_release release;
    ComputeReferences(problem, options, python_poll.Function(), &result);
  }
  python_poll.ThrowIfFailed();
  const py::ssize_t points = problem.num_points, dimension = patches.shape(3) * nodes.size();
  py::dict out("features"_a = ToArray<float>(result.features, {points, dimension}),
               "nearest"_a = ToArray<int64_t>(result.nearest, {points}),
               "counts"_a = ToArray<bool>(result.counts, {n}),
               "iterations"_a = ToArray<int32_t>(result.iterations, {points}), "observations"_a = py::none());
  if (keep_observations) out["observations"] = ToArray<float>(result.observations, {n, dimension});
  return out;
}

Array<float> CostMapsOfArrays(const py::array& patches, const Array<int32_t>& corners,
                              const Array<double>& scales, const Array<int64_t>& rows,
                              const Array<float>& references, const Array<int64_t>& reference,
                              const Nodes& nodes, const std::string& mode, bool l2_normalize,
                              bool ncc_normalize, int num_threads, py::object poll) {
  const FeatureLevel level = LevelOf(patches, corners, scales, rows);
  const int64_t n = rows.size();
  Require(
      references.ndim() == 2 && references.shape(1) == level.channels * static_cast<int64_t>(nodes.size()),
      "expected references (m, channels * nodes)");
  Require(reference.ndim() == 1 && reference.size() == n, "reference must have the shape (n,)");
  for (int64_t k = 0; k < n; ++k) {
    Require(reference.at(k) >= -1 && reference.at(k) < references.shape(0), "a reference is out of range");
  }
  const InterpolationOptions interpolation = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  Array<float> maps({n, level.height, level.width, int64_t{3}});
  PythonPoll python_poll(std::move(poll));
  {
    float* out = maps.mutable_data();
    const py::gil_scoped_release release;
    ComputeCostMaps(level, n, reference.data(), references.data(), interpolation, num_threads,
                    python_poll.Function(), out);
  }
  python_poll.ThrowIfFailed();
  return maps;
}

// patches (m, P, P, C), corners (m, 2), scales (m, 2), rows (n,)
using Level = std::tuple<py::array, Array<int32_t>, Array<double>, Array<int64_t>>;

ReferenceTargets TargetsOf(const Level& level, const Array<int64_t>& ptr, const Array<int64_t>& reference,
                           const Array<float>& references, const std::optional<Array<double>>& warps,
                           size_t num_nodes) {
  const auto& [patches, corners, scales, rows] = level;
  const FeatureLevel native = LevelOf(patches, corners, scales, rows);
  const int64_t n = rows.size(), targets = reference.size();
  Require(references.ndim() == 2 && references.shape(1) == native.channels * static_cast<int64_t>(num_nodes),
          "expected references (m, channels * nodes)");
  Require(ptr.ndim() == 1 && ptr.size() == n + 1 && ptr.at(0) == 0 && ptr.at(n) == targets,
          "ptr must rise from 0 to the number of targets");
  for (int64_t k = 0; k < n; ++k) Require(ptr.at(k) <= ptr.at(k + 1), "ptr must not fall");
  for (int64_t t = 0; t < targets; ++t) {
    Require(reference.at(t) >= 0 && reference.at(t) < references.shape(0), "a reference is out of range");
  }
  Require(
      !warps || (warps->ndim() == 3 && warps->shape(0) == n && warps->shape(1) == 2 && warps->shape(2) == 2),
      "warps must have the shape (n, 2, 2)");
  return {native, n, ptr.data(), reference.data(), references.data(), warps ? warps->data() : nullptr};
}

void RequirePositions(const Array<double>& xy, int64_t n) {
  Require(xy.ndim() == 2 && xy.shape(0) == n && xy.shape(1) == 2, "positions must have the shape (n, 2)");
}

Array<double> EvaluateTargetsOfArrays(const Array<double>& xy, const Level& level, const Array<int64_t>& ptr,
                                      const Array<int64_t>& reference, const Array<float>& references,
                                      const std::optional<Array<double>>& warps, const Nodes& nodes,
                                      const std::string& mode, bool l2_normalize, bool ncc_normalize,
                                      const std::string& loss, double loss_scale) {
  const ReferenceTargets targets = TargetsOf(level, ptr, reference, references, warps, nodes.size());
  RequirePositions(xy, targets.num_keypoints);
  const InterpolationOptions interpolation = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  const Loss native_loss{LossNamed(loss), loss_scale};
  Array<double> costs({targets.num_keypoints, int64_t{6}});
  static_assert(sizeof(TargetCost) == 6 * sizeof(double));
  {
    auto* out = reinterpret_cast<TargetCost*>(costs.mutable_data());
    const py::gil_scoped_release release;
    EvaluateTargets(targets, interpolation, native_loss, xy.data(), out);
  }
  return costs;
}

py::dict AlignToTargetsOfArrays(const Array<double>& detected, const Array<double>& xy, const Level& level,
                                const Array<int64_t>& ptr, const Array<int64_t>& reference,
                                const Array<float>& references, const std::optional<Array<double>>& warps,
                                const Nodes& nodes, const std::string& mode, bool l2_normalize,
                                bool ncc_normalize, const std::string& loss, double loss_scale, double bound,
                                int max_iterations, double parameter_tolerance) {
  const ReferenceTargets targets = TargetsOf(level, ptr, reference, references, warps, nodes.size());
  const int64_t n = targets.num_keypoints;
  RequirePositions(detected, n);
  RequirePositions(xy, n);
  const TargetAlignmentOptions options{MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize),
                                       {LossNamed(loss), loss_scale},
                                       bound,
                                       max_iterations,
                                       parameter_tolerance};
  std::vector<double> moved(xy.data(), xy.data() + 2 * n);
  std::vector<TargetAlignment> results(n);
  {
    const py::gil_scoped_release release;
    AlignToTargets(targets, options, detected.data(), moved.data(), results.data());
  }
  Array<uint8_t> outcome(n);
  Array<double> before(n), after({n, int64_t{6}});
  for (int64_t k = 0; k < n; ++k) {
    outcome.mutable_at(k) = static_cast<uint8_t>(results[k].outcome);
    before.mutable_at(k) = results[k].before;
    *reinterpret_cast<TargetCost*>(after.mutable_data(k, 0)) = results[k].after;
  }
  return py::dict("xy"_a = ToArray<double>(moved, {n, 2}), "outcome"_a = outcome, "before"_a = before,
                  "after"_a = after);
}

}  // namespace

void BindReferences(py::module_& m) {
  m.def("compute_references", &ReferencesOfArrays, "xy"_a.noconvert(), "point_ptr"_a.noconvert(),
        "patches"_a.noconvert(), "corners"_a.noconvert(), "scales"_a.noconvert(), "rows"_a.noconvert(),
        py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
        "ncc_normalize"_a = false, "loss_scale"_a = .25, "max_iterations"_a = 100,
        "keep_observations"_a = false, "num_threads"_a = -1, "poll"_a = py::none(),
        "See pixcli.bundle_adjustment.feature_references.compute_references.");
  m.def("compute_cost_maps", &CostMapsOfArrays, "patches"_a.noconvert(), "corners"_a.noconvert(),
        "scales"_a.noconvert(), "rows"_a.noconvert(), "references"_a.noconvert(), "reference"_a.noconvert(),
        py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
        "ncc_normalize"_a = false, "num_threads"_a = -1, "poll"_a = py::none(),
        "(n, P, P, 3) distance to a reference and its derivatives at the samples of patches.");
  m.attr("TARGET_ALIGNED") = static_cast<int>(TargetOutcome::kAligned);
  m.attr("TARGET_AT_BOUND") = static_cast<int>(TargetOutcome::kAtBound);
  m.attr("TARGET_UNUSABLE") = static_cast<int>(TargetOutcome::kUnusable);
  m.def("evaluate_targets", &EvaluateTargetsOfArrays, "xy"_a.noconvert(), "level"_a, "ptr"_a.noconvert(),
        "reference"_a.noconvert(), "references"_a.noconvert(), "warps"_a = py::none(), py::kw_only(),
        "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true, "ncc_normalize"_a = false,
        "loss"_a = "trivial", "loss_scale"_a = 1.,
        "(n, 6) cost of keypoints against references, its gradient x y and Hessian xx xy yy by the pixel.");
  m.def("align_to_targets", &AlignToTargetsOfArrays, "detected"_a.noconvert(), "xy"_a.noconvert(), "level"_a,
        "ptr"_a.noconvert(), "reference"_a.noconvert(), "references"_a.noconvert(), "warps"_a = py::none(),
        py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
        "ncc_normalize"_a = false, "loss"_a = "trivial", "loss_scale"_a = 1., "bound"_a = 4.,
        "max_iterations"_a = 100, "parameter_tolerance"_a = 1e-5,
        "xy (n, 2) where the cost is least, outcome (n,) of TARGET_*, cost before (n,), and after (n, 6) as "
        "evaluate_targets gives it.");
}

}  // namespace pixcli
