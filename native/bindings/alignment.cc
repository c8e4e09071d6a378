#include "bindings/alignment.h"

#include <pybind11/native_enum.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/patches.h"
#include "bindings/poll.h"
#include "core/alignment.h"
#include "core/features.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

// Templates (t,) and the jobs (j,) that each serves, as Python hands them over.
class Templates {
 public:
  Templates(const py::object& patch, const py::object& xy, const py::object& spacing,
            const py::object& job_ptr, const py::object& job_patch, const py::object& starts,
            const py::object& perspective_deviation)
      : patch_(ArrayOf<int32_t>(patch, "patch", {-1})),
        xy_(ArrayOf<double>(xy, "xy", {patch_.size(), 2})),
        spacing_(ArrayOf<double>(spacing, "spacing", {patch_.size()})),
        job_ptr_(ArrayOf<int64_t>(job_ptr, "job_ptr", {patch_.size() + 1})),
        job_patch_(ArrayOf<int32_t>(job_patch, "job_patch", {-1})),
        starts_(ArrayOf<double>(starts, "starts", {job_patch_.size(), -1, 8})) {
    RequirePointers(job_ptr_, "job_ptr", job_patch_.size());
    Require(starts_.shape(1) > 0, "starts must hold a candidate for each job");
    if (!perspective_deviation.is_none()) {
      perspective_deviation_ =
          ArrayOf<double>(perspective_deviation, "perspective_deviation", {patch_.size()});
    }
  }

  // Throws if one of the patches is not among so many.
  void RequirePatches(int64_t num_patches) const {
    RequireIndices(patch_, "patch", num_patches);
    RequireIndices(job_patch_, "job_patch", num_patches);
  }

  bool has_perspective() const { return perspective_deviation_.has_value(); }
  py::ssize_t num_jobs() const { return job_patch_.size(); }
  TemplateArrays arrays() const {
    return {patch_.size(),
            patch_.data(),
            xy_.data(),
            spacing_.data(),
            has_perspective() ? perspective_deviation_->data() : nullptr,
            job_ptr_.data()};
  }
  JobArrays jobs(Alignment* alignment) const {
    return {job_patch_.data(), static_cast<int>(starts_.shape(1)),
            reinterpret_cast<const Warp*>(starts_.data()), alignment};
  }

 private:
  Array<int32_t> patch_;
  Array<double> xy_, spacing_;
  Array<int64_t> job_ptr_;
  Array<int32_t> job_patch_;
  Array<double> starts_;
  std::optional<Array<double>> perspective_deviation_;
};

Array<Alignment> Align(const Patches& patches, const Support& support, const Templates& templates,
                       const AlignmentLimits& limits, int num_threads, const py::object& progress) {
  templates.RequirePatches(patches.num_patches());
  Require(patches.is_grey() == templates.has_perspective(),
          "perspective_deviation must be given for grey patches, and for no others");
  Array<Alignment> alignment(templates.num_jobs());
  const JobArrays jobs = templates.jobs(alignment.mutable_data());
  const TemplateArrays arrays = templates.arrays();
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    if (patches.is_grey()) {
      AlignPatches(patches.grey(), support, arrays, jobs, limits, num_threads, poll.Function());
    } else {
      AlignFeatures(patches.features(), {support.View(), patches.comparison()}, arrays, jobs, limits,
                    num_threads, poll.Function());
    }
  }
  poll.ThrowIfFailed();
  return alignment;
}

}  // namespace

void BindAlignment(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(Warp, x, y, a11, a12, a21, a22, h1, h2);
  PYBIND11_NUMPY_DTYPE(Alignment, warp, correlation, initial_correlation, cov_xx, cov_xy, cov_yy, iterations,
                       outcome);
  m.attr("alignment_dtype") = py::dtype::of<Alignment>();
  py::native_enum<Outcome>(m, "Outcome", "enum.IntEnum", "How an alignment or a measurement ended.")
      .value("CONVERGED", Outcome::kConverged)
      .value("OUTSIDE", Outcome::kOutside, "The support leaves a patch.")
      .value("FLAT", Outcome::kFlat, "There is no texture.")
      .value("DIVERGED", Outcome::kDiverged)
      .finalize();
  py::class_<Support>(m, "Support",
                      "(2 radius + 1)^2 nodes under a Gaussian window of `window` radii; radius is 1 to 15.")
      .def(py::init<int, double>(), "radius"_a, "window"_a);
  py::class_<Templates>(
      m, "TemplateArrays",
      "Templates (t,) and the jobs (j,) that are aligned to each.\n\n"
      "Args:\n"
      "    patch: (t,) int32, the patch that each is made from.\n"
      "    xy: (t, 2) float64, the pixel that it is made around.\n"
      "    spacing: (t,) float64, pixels from node to node.\n"
      "    job_ptr: (t + 1,) int64, template k serves jobs job_ptr[k]:job_ptr[k + 1].\n"
      "    job_patch: (j,) int32, the patch that each job aligns.\n"
      "    starts: (j, candidates, 8) float64 x y a11 a12 a21 a22 h1 h2, the best is taken.\n"
      "    perspective_deviation: (t,) float64, prior deviation of h in 1/pixels; of grey "
      "patches only.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&,
                    const py::object&, const py::object&, const py::object&>(),
           py::kw_only(), "patch"_a, "xy"_a, "spacing"_a, "job_ptr"_a, "job_patch"_a, "starts"_a,
           "perspective_deviation"_a = py::none());
  py::class_<AlignmentLimits>(m, "AlignmentLimits",
                              "max_excursion and step_tolerance in pixels; translation: only the position.")
      .def(py::init([](int max_iterations, double max_excursion, double step_tolerance, bool translation) {
             return AlignmentLimits{max_iterations, max_excursion, step_tolerance, translation};
           }),
           py::kw_only(), "max_iterations"_a, "max_excursion"_a, "step_tolerance"_a, "translation"_a);
  m.def("align", &Align, "patches"_a, "support"_a, "templates"_a, "limits"_a, py::kw_only(), "num_threads"_a,
        "progress"_a = py::none(),
        "(j,) alignment_dtype of each job. progress is called with the number of templates done.");
}

}  // namespace pixcli
