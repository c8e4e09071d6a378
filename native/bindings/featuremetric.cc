#include "bindings/featuremetric.h"

#include <pybind11/native_enum.h>

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
  RequireShape(patches, "patches", {-1, -1, -1, -1});
  RequireShape(rows, "rows", {-1});
  RequireShape(uv, "uv", {rows.size(), 2});
  RequireIndices(rows, "rows", patches.shape(0));
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

py::dict AdjustFeaturemetricArrays(
    const Array<double>& xy, const Array<int64_t>& track_ptr, const Array<int32_t>& members,
    const Array<int32_t>& edges, const std::optional<Array<double>>& weights,
    const std::optional<Array<bool>>& constant, const std::vector<Level>& levels, const Nodes& nodes,
    const std::string& mode, bool l2_normalize, bool ncc_normalize, const std::string& loss,
    double loss_scale, double bound, int max_iterations, double function_tolerance, double gradient_tolerance,
    double parameter_tolerance, bool root_edges_only, double root_regularize_weight, double max_deviation,
    bool guard, int64_t max_kps_per_problem, int num_threads, py::object poll) {
  const py::ssize_t n = xy.ndim() == 2 ? xy.shape(0) : -1;
  RequireShape(xy, "xy", {n, 2});
  RequireShape(members, "members", {-1});
  RequireIndices(members, "members", n);
  RequireShape(track_ptr, "track_ptr", {-1});
  RequirePointers(track_ptr, "track_ptr", members.size());
  RequireShape(edges, "edges", {-1, 2});
  RequireIndices(edges, "edges", n);
  if (weights) RequireShape(*weights, "weights", {edges.shape(0)});
  if (constant) RequireShape(*constant, "constant", {n});
  Require(!levels.empty(), "levels must hold one level of features or more");
  FeaturemetricProblem problem{n,
                               track_ptr.size() - 1,
                               edges.shape(0),
                               xy.data(),
                               track_ptr.data(),
                               members.data(),
                               edges.data(),
                               weights ? weights->data() : nullptr,
                               constant ? reinterpret_cast<const uint8_t*>(constant->data()) : nullptr,
                               {}};
  for (const Level& level : levels) {
    problem.levels.push_back(LevelOf(level));
    RequireShape(std::get<3>(level), "rows", {n});
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
  const py::ssize_t tracks = problem.num_tracks;
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
  py::native_enum<Status>(m, "Status", "enum.IntEnum",
                          "What happened to a keypoint; everything but MOVED leaves it where it was.")
      .value("UNMATCHED", Status::kUnmatched, "In no track: nothing to align it with.")
      .value("MOVED", Status::kMoved)
      .value("ROOT", Status::kRoot, "The root of its track, which defines where the others go.")
      .value("CONSTANT", Status::kConstant, "Held fixed on request.")
      .value("OUT_OF_BOUND", Status::kOutOfBound, "The optimum is further away than the bound allows.")
      .value("OUT_OF_IMAGE", Status::kOutOfImage, "Its support leaves the image.")
      .value("WEAK_TEXTURE", Status::kWeakTexture,
             "Flat, or the predicted standard deviation is over its threshold.")
      .value("LOW_CORRELATION", Status::kLowCorrelation,
             "It does not look like its track's template, even after alignment.")
      .value("WORSE_SCORE", Status::kWorseScore, "Moving it would not have improved its cost or correlation.")
      .value("DISTORTED", Status::kDistorted, "The local warp drifted too far from its start.")
      .value("INVALID", Status::kInvalid, "Not finite, or outside the image.")
      .value("UNDONE", Status::kUndone,
             "Moved, but matches fitted the geometry of their image pairs worse: all such were undone.")
      .finalize();
  // What a table calls it.
  m.attr("Status").attr("label") =
      py::module_::import("builtins").attr("property")(py::cpp_function([](const py::object& status) {
        return status.attr("name").attr("lower")().attr("replace")("_", " ");
      }));
  m.def("interpolate", &InterpolatePatches, "patches"_a.noconvert(), "rows"_a, "uv"_a, py::kw_only(),
        "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "double_precision"_a = false,
        "Value and derivatives (n, 3, D) of patches at sample coordinates uv.");
  m.def("evaluate_loss", &EvaluateLoss, "squares"_a, "loss"_a, "scale"_a,
        "rho(s) and rho'(s) of squared norms s.");
  m.def("adjust_featuremetric", &AdjustFeaturemetricArrays, "xy"_a.noconvert(), "track_ptr"_a.noconvert(),
        "members"_a.noconvert(), "edges"_a.noconvert(), "weights"_a.noconvert(), "constant"_a.noconvert(),
        "levels"_a, py::kw_only(), "nodes"_a, "mode"_a, "l2_normalize"_a, "ncc_normalize"_a, "loss"_a,
        "loss_scale"_a, "bound"_a, "max_iterations"_a, "function_tolerance"_a, "gradient_tolerance"_a,
        "parameter_tolerance"_a, "root_edges_only"_a, "root_regularize_weight"_a, "max_deviation"_a,
        "guard"_a, "max_kps_per_problem"_a, "num_threads"_a, "poll"_a = py::none(),
        "Moves keypoints xy (n, 2) float64 until the features of their tracks agree.\n\n"
        "Args:\n"
        "    track_ptr: (t + 1,) int64, track k has members[track_ptr[k]:track_ptr[k + 1]] int32, its root "
        "first.\n"
        "    edges: (m, 2) int32, with weights (m,) float64 or None.\n"
        "    constant: (n,) bool of keypoints that stay, or None.\n"
        "    levels: coarse to fine, of patches (p, height, width, channels), corners (p, 2) int32, scales "
        "(p, 2) float64 and rows (n,) int64, the patch of each keypoint or -1.\n"
        "    poll: called with the number of tracks done.");
}

}  // namespace pixcli
