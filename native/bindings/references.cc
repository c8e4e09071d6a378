#include "bindings/references.h"

#include <pybind11/native_enum.h>

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

py::dict ReferencesOfArrays(const Array<double>& xy, const Array<int64_t>& point_ptr,
                            const py::array& patches, const Array<int32_t>& corners,
                            const Array<double>& scales, const Array<int64_t>& rows, const Nodes& nodes,
                            const std::string& mode, bool l2_normalize, bool ncc_normalize, double loss_scale,
                            int max_iterations, bool keep_observations, int num_threads, py::object poll) {
  const FeatureLevel level = LevelOf({patches, corners, scales, rows});
  const int64_t n = rows.size();
  RequireShape(xy, "xy", {n, 2});
  RequireShape(point_ptr, "point_ptr", {-1});
  RequirePointers(point_ptr, "point_ptr", n);
  const ReferenceProblem problem{level, xy.data(), point_ptr.size() - 1, point_ptr.data()};
  ReferenceOptions options;
  options.interpolation = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  options.loss = {LossType::kCauchy, loss_scale};
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
  const FeatureLevel level = LevelOf({patches, corners, scales, rows});
  const int64_t n = rows.size();
  RequireShape(references, "references", {-1, level.channels * static_cast<int64_t>(nodes.size())});
  RequireShape(reference, "reference", {n});
  RequireIndices(reference, "reference", references.shape(0), -1);
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

ReferenceTargets TargetsOf(const Level& level, const Array<int64_t>& ptr, const Array<int64_t>& reference,
                           const Array<float>& references, const std::optional<Array<double>>& warps,
                           size_t num_nodes) {
  const FeatureLevel native = LevelOf(level);
  const int64_t n = std::get<3>(level).size(), targets = reference.size();
  RequireShape(references, "references", {-1, native.channels * static_cast<int64_t>(num_nodes)});
  RequireShape(ptr, "ptr", {n + 1});
  RequirePointers(ptr, "ptr", targets);
  RequireShape(reference, "reference", {-1});
  RequireIndices(reference, "reference", references.shape(0));
  if (warps) RequireShape(*warps, "warps", {n, 2, 2});
  return {native, n, ptr.data(), reference.data(), references.data(), warps ? warps->data() : nullptr};
}

Array<double> EvaluateTargetsOfArrays(const Array<double>& xy, const Level& level, const Array<int64_t>& ptr,
                                      const Array<int64_t>& reference, const Array<float>& references,
                                      const std::optional<Array<double>>& warps, const Nodes& nodes,
                                      const std::string& mode, bool l2_normalize, bool ncc_normalize,
                                      const std::string& loss, double loss_scale) {
  const ReferenceTargets targets = TargetsOf(level, ptr, reference, references, warps, nodes.size());
  RequireShape(xy, "xy", {targets.num_keypoints, 2});
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
  RequireShape(detected, "detected", {n, 2});
  RequireShape(xy, "xy", {n, 2});
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
        py::kw_only(), "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "loss_scale"_a,
        "max_iterations"_a, "keep_observations"_a, "num_threads"_a, "poll"_a = py::none(),
        "See pixcli.bundle_adjustment.feature_references.compute_references.");
  m.def("compute_cost_maps", &CostMapsOfArrays, "patches"_a.noconvert(), "corners"_a.noconvert(),
        "scales"_a.noconvert(), "rows"_a.noconvert(), "references"_a.noconvert(), "reference"_a.noconvert(),
        py::kw_only(), "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "num_threads"_a,
        "poll"_a = py::none(),
        "(n, P, P, 3) distance to a reference and its derivatives at the samples of patches.");
  py::native_enum<TargetOutcome>(m, "TargetOutcome", "enum.IntEnum", "How align_to_targets ended.")
      .value("ALIGNED", TargetOutcome::kAligned)
      .value("AT_BOUND", TargetOutcome::kAtBound)
      .value("UNUSABLE", TargetOutcome::kUnusable, "No target, outside of its patch, or not finite.")
      .finalize();
  m.def("evaluate_targets", &EvaluateTargetsOfArrays, "xy"_a.noconvert(), "level"_a, "ptr"_a.noconvert(),
        "reference"_a.noconvert(), "references"_a.noconvert(), "warps"_a = py::none(), py::kw_only(),
        "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "loss"_a, "loss_scale"_a,
        "(n, 6) cost of keypoints against references, its gradient x y and Hessian xx xy yy by the pixel.");
  m.def("align_to_targets", &AlignToTargetsOfArrays, "detected"_a.noconvert(), "xy"_a.noconvert(), "level"_a,
        "ptr"_a.noconvert(), "reference"_a.noconvert(), "references"_a.noconvert(), "warps"_a = py::none(),
        py::kw_only(), "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "loss"_a, "loss_scale"_a,
        "bound"_a, "max_iterations"_a, "parameter_tolerance"_a,
        "xy (n, 2) where the cost is least, outcome (n,) of TargetOutcome, cost before (n,), and after (n, "
        "6) as "
        "evaluate_targets gives it.");
}

}  // namespace pixcli
