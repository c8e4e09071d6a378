#include "bindings/surface.h"

#include <limits>

#include "bindings/arrays.h"
#include "bindings/patches.h"
#include "bindings/poll.h"
#include "core/surface.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

// The pairs of views of each point, as Python hands them over.
class Surfaces {
 public:
  Surfaces(const py::object& views, const py::object& reference, const py::object& ptr,
           const py::object& view, const py::object& patch, const py::object& reference_patch,
           const py::object& spacing)
      : views_(ArrayOf<SurfaceView>(views, "views", {-1})),
        reference_(ArrayOf<int32_t>(reference, "reference", {-1})),
        ptr_(ArrayOf<int64_t>(ptr, "ptr", {reference_.size() + 1})),
        view_(ArrayOf<int32_t>(view, "view", {-1})),
        patch_(ArrayOf<int32_t>(patch, "patch", {view_.size()})),
        reference_patch_(ArrayOf<int32_t>(reference_patch, "reference_patch", {view_.size()})),
        spacing_(ArrayOf<double>(spacing, "spacing", {view_.size()})) {
    RequirePointers(ptr_, "ptr", view_.size());
    RequireIndices(reference_, "reference", views_.size());
    RequireIndices(view_, "view", views_.size());
  }

  // Throws if one of the patches is not among so many.
  void RequirePatches(int64_t num_patches) const {
    RequireIndices(patch_, "patch", num_patches);
    RequireIndices(reference_patch_, "reference_patch", num_patches);
  }

  py::ssize_t num_pairs() const { return view_.size(); }
  SurfaceArrays arrays() const {
    return {reference_.size(), views_.data(), reference_.data(),       ptr_.data(),
            view_.data(),      patch_.data(), reference_patch_.data(), spacing_.data()};
  }

 private:
  Array<SurfaceView> views_;
  Array<int32_t> reference_;
  Array<int64_t> ptr_;
  Array<int32_t> view_, patch_, reference_patch_;
  Array<double> spacing_;
};

// Both loops: fills `out`, given the planes to start from or to hold.
template <class Result, class Loop>
void Run(const Patches& patches, const Support& support, const Surfaces& surfaces, const py::object& progress,
         Result* out, const Loop& loop) {
  surfaces.RequirePatches(patches.num_patches());
  const SurfaceArrays arrays = surfaces.arrays();
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    if (patches.is_grey()) {
      loop(patches.grey(), support.View(), arrays, poll.Function(), out);
    } else {
      loop(patches.features(), FeatureSupport{support.View(), patches.comparison()}, arrays, poll.Function(),
           out);
    }
  }
  poll.ThrowIfFailed();
}

Array<double> PlanesOf(const py::object& planes, const Surfaces& surfaces) {
  return ArrayOf<double>(planes, "planes", {surfaces.arrays().num_points, 3});
}

Array<SurfaceFit> RefineSurfaceArrays(const Patches& patches, const Support& support,
                                      const Surfaces& surfaces, const py::object& planes,
                                      const SurfaceLimits& limits, int num_threads,
                                      const py::object& progress) {
  const Array<double> start = PlanesOf(planes, surfaces);
  Array<SurfaceFit> fits(surfaces.arrays().num_points);
  SurfaceFit* out = fits.mutable_data();
  for (py::ssize_t p = 0; p < fits.size(); ++p)
    out[p] = {reinterpret_cast<const Plane*>(start.data())[p],
              -1,
              -1,
              std::numeric_limits<double>::quiet_NaN(),
              0,
              0,
              0,
              0};
  Run(patches, support, surfaces, progress, out,
      [&](const auto& maps, const auto& nodes, const SurfaceArrays& arrays, const Poll& poll,
          SurfaceFit* result) { RefineSurfaces(maps, nodes, arrays, limits, num_threads, poll, result); });
  return fits;
}

Array<SurfaceShift> MeasureShiftArrays(const Patches& patches, const Support& support,
                                       const Surfaces& surfaces, const py::object& planes,
                                       const SurfaceLimits& limits, int num_threads,
                                       const py::object& progress) {
  const Array<double> held = PlanesOf(planes, surfaces);
  const Plane* fixed = reinterpret_cast<const Plane*>(held.data());
  Array<SurfaceShift> shifts(surfaces.num_pairs());
  Run(patches, support, surfaces, progress, shifts.mutable_data(),
      [&](const auto& maps, const auto& nodes, const SurfaceArrays& arrays, const Poll& poll,
          SurfaceShift* result) {
        MeasureShifts(maps, nodes, arrays, limits, fixed, num_threads, poll, result);
      });
  return shifts;
}

}  // namespace

void BindSurface(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(SurfaceView, rotation, distance, x, y, jacobian, curvature);
  PYBIND11_NUMPY_DTYPE(Plane, offset, slope_x, slope_y);
  PYBIND11_NUMPY_DTYPE(SurfaceFit, plane, initial_correlation, correlation, depth_deviation, shift, num_views,
                       iterations, outcome);
  PYBIND11_NUMPY_DTYPE(SurfaceShift, x, y, dx, dy, correlation, initial_correlation, cov_xx, cov_xy, cov_yy,
                       iterations, outcome);
  m.attr("surface_view_dtype") = py::dtype::of<SurfaceView>();
  py::class_<Surfaces>(m, "SurfaceArrays",
                       "Points (p,) and the pairs (n,) of views that see them.\n\n"
                       "Args:\n"
                       "    views: (v,) surface_view_dtype.\n"
                       "    reference: (p,) int32, the view that each point's others are compared with.\n"
                       "    ptr: (p + 1,) int64, the pairs of point k are ptr[k]:ptr[k + 1].\n"
                       "    view: (n,) int32, the view of each pair.\n"
                       "    patch, reference_patch: (n,) int32, patches of the view and of the reference.\n"
                       "    spacing: (n,) float64, pixels of the reference from node to node.")
      .def(py::init<const py::object&, const py::object&, const py::object&, const py::object&,
                    const py::object&, const py::object&, const py::object&>(),
           py::kw_only(), "views"_a, "reference"_a, "ptr"_a, "view"_a, "patch"_a, "reference_patch"_a,
           "spacing"_a);
  py::class_<SurfaceLimits>(m, "SurfaceLimits", "max_shift and step_tolerance in pixels of any view.")
      .def(py::init([](int max_iterations, double max_shift, double step_tolerance) {
             return SurfaceLimits{max_iterations, max_shift, step_tolerance};
           }),
           py::kw_only(), "max_iterations"_a, "max_shift"_a, "step_tolerance"_a);
  m.def("refine_surfaces", &RefineSurfaceArrays, "patches"_a, "support"_a, "surfaces"_a, "planes"_a,
        "limits"_a, py::kw_only(), "num_threads"_a, "progress"_a = py::none(),
        "(p,) planes and how they were found, from planes (p, 3) offset and slopes. progress is called with "
        "the number of points done.");
  m.def("measure_shifts", &MeasureShiftArrays, "patches"_a, "support"_a, "surfaces"_a, "planes"_a, "limits"_a,
        py::kw_only(), "num_threads"_a, "progress"_a = py::none(),
        "(n,) where each view sees its point, and its shift against planes (p, 3).");
}

}  // namespace pixcli
