#include "bindings/featuremetric.h"

#include <optional>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/poll.h"
#include "core/featuremetric.h"
#include "core/interpolation.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

using Nodes = std::vector<std::array<double, 2>>;

// (n, 3, D): value, derivative along x, along y.
template <class R>
Array<R> Interpolate(const py::array& patches, const Array<int64_t>& rows, const Array<double>& uv,
                     const Sampling& sampling) {
  const int64_t n = uv.shape(0), dimension = Dimension(sampling), stride = RowStride(dimension);
  Array<R> result({n, int64_t{3}, dimension});
  std::vector<R> values(3 * stride);
  for (int64_t k = 0; k < n; ++k) {
    const char* patch = static_cast<const char*>(patches.data()) + rows.at(k) * PatchBytes(sampling);
    SampleWith(CurrentKernels(), sampling, patch, uv.at(k, 0), uv.at(k, 1), values.data());
    for (int r = 0; r < 3; ++r) {
      std::copy_n(values.data() + r * stride, dimension, result.mutable_data(k, r, 0));
    }
  }
  return result;
}

py::array InterpolatePatches(const py::array& patches, const Array<int64_t>& rows, const Array<double>& uv,
                             const Nodes& nodes, const std::string& mode, bool l2_normalize,
                             bool ncc_normalize, bool double_precision) {
  if (patches.ndim() != 4 || rows.ndim() != 1 || uv.ndim() != 2 || uv.shape(0) != rows.shape(0) ||
      uv.shape(1) != 2) {
    throw py::value_error("expected patches (m, height, width, channels), rows (n,) and uv (n, 2)");
  }
  for (int64_t k = 0; k < rows.size(); ++k) {
    if (rows.at(k) < 0 || rows.at(k) >= patches.shape(0))
      throw py::index_error("a row is outside of the patches");
  }
  const InterpolationOptions options = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  const Sampling sampling =
      MakeSampling(options, StorageOf(patches), patches.shape(1), patches.shape(2), patches.shape(3));
  if (double_precision) return Interpolate<double>(patches, rows, uv, sampling);
  return Interpolate<float>(patches, rows, uv, sampling);
}

// (rho(s), rho'(s)) of squared norms s.
std::pair<Array<double>, Array<double>> EvaluateLoss(const Array<double>& squares, const std::string& loss,
                                                     double scale) {
  Array<double> values(squares.size()), derivatives(squares.size());
  for (int64_t k = 0; k < squares.size(); ++k) {
    values.mutable_at(k) = Loss{LossNamed(loss), scale}(squares.at(k), derivatives.mutable_data(k));
  }
  return {values, derivatives};
}

// patches (m, P, P, C), corners (m, 2), scales (m, 2), rows (n,)
using Level = std::tuple<py::array, Array<int32_t>, Array<double>, Array<int64_t>>;

py::dict AdjustFeaturemetricArrays(
    const Array<double>& xy, const Array<int64_t>& track_ptr, const Array<int32_t>& members,
    const Array<int32_t>& edges, const std::optional<Array<double>>& weights,
    const std::optional<Array<bool>>& constant, const std::vector<Level>& levels, const Nodes& nodes,
    const std::string& mode, bool l2_normalize, bool ncc_normalize, const std::string& loss,
    double loss_scale, double bound, int max_iterations, double function_tolerance, double gradient_tolerance,
    double parameter_tolerance, bool root_edges_only, double root_regularize_weight, double max_deviation,
    bool guard, int64_t max_kps_per_problem, int num_threads, py::object poll) {
  FeaturemetricProblem problem{xy.shape(0),
                               track_ptr.size() - 1,
                               edges.shape(0),
                               xy.data(),
                               track_ptr.data(),
                               members.data(),
                               edges.data(),
                               weights ? weights->data() : nullptr,
                               constant ? reinterpret_cast<const uint8_t*>(constant->data()) : nullptr,
                               {}};
  for (const auto& [patches, corners, scales, rows] : levels) {
    problem.levels.push_back({StorageOf(patches), patches.data(), patches.shape(0), patches.shape(1),
                              patches.shape(2), patches.shape(3), corners.data(), scales.data(),
                              rows.data()});
  }
  FeaturemetricOptions options;
  options.interpolation = MakeInterpolation(nodes, mode, l2_normalize, ncc_normalize);
  options.solver.loss = {LossNamed(loss), loss_scale};
  options.solver.bound = bound;
  options.solver.max_iterations = max_iterations;
  options.solver.function_tolerance = function_tolerance;
  options.solver.gradient_tolerance = gradient_tolerance;
  options.solver.parameter_tolerance = parameter_tolerance;
  options.solver.dense_limit = max_kps_per_problem;
  options.root_edges_only = root_edges_only;
  options.root_regularize_weight = root_regularize_weight;
  options.max_deviation = max_deviation;
  options.guard = guard;
  options.num_threads = num_threads;

  FeaturemetricResult result;
  PythonPoll python_poll(std::move(poll));
  {
    const py::gil_scoped_release release;
    AdjustFeaturemetric(problem, options, python_poll.Function(), &result);
  }
  python_poll.ThrowIfFailed();
  const py::ssize_t n = problem.num_keypoints, tracks = problem.num_tracks;
  return py::dict("xy"_a = ToArray<double>(result.xy, {n, 2}),
                  "status"_a = ToArray<uint8_t>(result.status, {n}),
                  "covariance"_a = ToArray<float>(result.covariance, {n, 3}),
                  "iterations"_a = ToArray<int32_t>(result.iterations, {tracks}),
                  "termination"_a = ToArray<uint8_t>(result.termination, {tracks}),
                  "cost_before"_a = ToArray<double>(result.cost_before, {tracks}),
                  "cost_after"_a = ToArray<double>(result.cost_after, {tracks}),
                  "effective_dimension"_a = result.effective_dimension);
}

}  // namespace

void BindFeaturemetric(py::module_& m) {
  m.def("interpolate", &InterpolatePatches, "patches"_a.noconvert(), "rows"_a, "uv"_a, py::kw_only(),
        "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true, "ncc_normalize"_a = false,
        "double_precision"_a = false, "Value and derivatives (n, 3, D) of patches at sample coordinates uv.");
  m.def("evaluate_loss", &EvaluateLoss, "squares"_a, "loss"_a, "scale"_a,
        "rho(s) and rho'(s) of squared norms s.");
  m.def("adjust_featuremetric", &AdjustFeaturemetricArrays, "xy"_a.noconvert(), "track_ptr"_a.noconvert(),
        "members"_a.noconvert(), "edges"_a.noconvert(), "weights"_a.noconvert(), "constant"_a.noconvert(),
        "levels"_a, py::kw_only(), "nodes"_a = Nodes{{0, 0}}, "mode"_a = "bicubic", "l2_normalize"_a = true,
        "ncc_normalize"_a = false, "loss"_a = "cauchy", "loss_scale"_a = .25, "bound"_a = 4.0,
        "max_iterations"_a = 20, "function_tolerance"_a = 0.0, "gradient_tolerance"_a = 0.0,
        "parameter_tolerance"_a = 1e-4, "root_edges_only"_a = false, "root_regularize_weight"_a = -1.0,
        "max_deviation"_a = 1e300, "guard"_a = true, "max_kps_per_problem"_a = 50, "num_threads"_a = -1,
        "poll"_a = py::none(),
        "See pixcli.keypoint_adjustment.feature_distance.adjust_keypoints, which checks what comes in here.");
}

}  // namespace pixcli
