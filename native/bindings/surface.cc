#include "bindings/surface.h"

#include <optional>

#include "bindings/alignment.h"
#include "bindings/arrays.h"
#include "bindings/features.h"
#include "bindings/poll.h"
#include "core/surface.h"

namespace py = pybind11;

namespace pixcli {
namespace {

bool AllBelow(const Array<int32_t>& index, int64_t limit) {
  for (py::ssize_t i = 0; i < index.size(); ++i) {
    if (index.data()[i] < 0 || index.data()[i] >= limit) return false;
  }
  return true;
}

SurfaceArrays SurfacesOf(const Array<SurfaceView>& views, const Array<int32_t>& reference,
                         const Array<int64_t>& ptr, const Array<int32_t>& view, const Array<int32_t>& patch,
                         const Array<int32_t>& reference_patch, const Array<double>& spacing,
                         int64_t num_patches) {
  const py::ssize_t n = reference.size(), m = view.size();
  Require(ptr.size() == n + 1 && patch.size() == m && reference_patch.size() == m && spacing.size() == m,
          "points and pairs must have matching lengths");
  Require(ptr.data()[0] == 0 && ptr.data()[n] == m, "ptr must go from 0 to the number of pairs");
  for (py::ssize_t p = 0; p < n; ++p) Require(ptr.data()[p] <= ptr.data()[p + 1], "ptr must not fall");
  Require(AllBelow(reference, views.size()) && AllBelow(view, views.size()), "a view is out of range");
  Require(AllBelow(patch, num_patches) && AllBelow(reference_patch, num_patches), "a patch is out of range");
  return {n,           views.data(), reference.data(),       ptr.data(),
          view.data(), patch.data(), reference_patch.data(), spacing.data()};
}

// Grey patches, or, where a comparison is named, patches of feature maps.
struct Maps {
  Maps(const py::array& buffer, const std::optional<Array<float>>& gains,
       const std::optional<std::string>& compared, const Array<int64_t>& offset, const Array<int32_t>& size,
       const Array<double>& origin) {
    if (compared) {
      features = FeaturesOf(buffer, gains, offset, size, origin);
      comparison = ComparisonOf(*compared);
    } else {
      Require(Array<uint8_t>::check_(buffer), "the buffer of grey patches must be uint8");
      grey = PatchesOf(py::reinterpret_borrow<Array<uint8_t>>(buffer), offset, size, origin);
    }
  }
  std::optional<PatchArrays> grey;
  std::optional<FeatureArrays> features;
  Comparison comparison = Comparison::kCorrelation;
};

Array<SurfaceFit> RefineSurfaceArrays(const py::array& buffer, const Array<int64_t>& offset,
                                      const Array<int32_t>& size, const Array<double>& origin, int radius,
                                      double window, const Array<SurfaceView>& views,
                                      const Array<int32_t>& reference, const Array<int64_t>& ptr,
                                      const Array<int32_t>& view, const Array<int32_t>& patch,
                                      const Array<int32_t>& reference_patch, const Array<double>& spacing,
                                      const Array<double>& planes, int max_iterations, double max_shift,
                                      double step_tolerance, int num_threads, const py::object& progress,
                                      const std::optional<Array<float>>& gains,
                                      const std::optional<std::string>& comparison) {
  const Maps maps(buffer, gains, comparison, offset, size, origin);
  const SurfaceArrays surfaces =
      SurfacesOf(views, reference, ptr, view, patch, reference_patch, spacing, offset.size());
  Require(planes.size() == 3 * surfaces.num_points, "planes must be (points, 3)");
  const Support support(radius, window);
  Array<SurfaceFit> fits(surfaces.num_points);
  SurfaceFit* out = fits.mutable_data();
  for (int64_t p = 0; p < surfaces.num_points; ++p)
    out[p] = {reinterpret_cast<const Plane*>(planes.data())[p], -1, -1, NAN, 0, 0, 0, 0};
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    const SurfaceLimits limits{max_iterations, max_shift, step_tolerance};
    if (maps.features) {
      RefineSurfaces(*maps.features, {support.View(), maps.comparison}, surfaces, limits, num_threads,
                     poll.Function(), out);
    } else {
      RefineSurfaces(*maps.grey, support.View(), surfaces, limits, num_threads, poll.Function(), out);
    }
  }
  poll.ThrowIfFailed();
  return fits;
}

Array<SurfaceShift> MeasureShiftArrays(const py::array& buffer, const Array<int64_t>& offset,
                                       const Array<int32_t>& size, const Array<double>& origin, int radius,
                                       double window, const Array<SurfaceView>& views,
                                       const Array<int32_t>& reference, const Array<int64_t>& ptr,
                                       const Array<int32_t>& view, const Array<int32_t>& patch,
                                       const Array<int32_t>& reference_patch, const Array<double>& spacing,
                                       const Array<double>& planes, int max_iterations, double max_shift,
                                       double step_tolerance, int num_threads, const py::object& progress,
                                       const std::optional<Array<float>>& gains,
                                       const std::optional<std::string>& comparison) {
  const Maps maps(buffer, gains, comparison, offset, size, origin);
  const SurfaceArrays surfaces =
      SurfacesOf(views, reference, ptr, view, patch, reference_patch, spacing, offset.size());
  Require(planes.size() == 3 * surfaces.num_points, "planes must be (points, 3)");
  const Support support(radius, window);
  Array<SurfaceShift> shifts(view.size());
  SurfaceShift* out = shifts.mutable_data();
  const Plane* fixed = reinterpret_cast<const Plane*>(planes.data());
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    const SurfaceLimits limits{max_iterations, max_shift, step_tolerance};
    if (maps.features) {
      MeasureShifts(*maps.features, {support.View(), maps.comparison}, surfaces, limits, fixed, num_threads,
                    poll.Function(), out);
    } else {
      MeasureShifts(*maps.grey, support.View(), surfaces, limits, fixed, num_threads, poll.Function(), out);
    }
  }
  poll.ThrowIfFailed();
  return shifts;
}

template <class Function>
void DefineLoop(py::module_& m, const char* name, Function function) {
  m.def(name, function, py::arg("buffer"), py::arg("offset"), py::arg("size"), py::arg("origin"),
        py::arg("radius"), py::arg("window"), py::arg("views"), py::arg("reference"), py::arg("ptr"),
        py::arg("view"), py::arg("patch"), py::arg("reference_patch"), py::arg("spacing"), py::arg("planes"),
        py::arg("max_iterations"), py::arg("max_shift"), py::arg("step_tolerance"), py::arg("num_threads"),
        py::arg("progress") = py::none(), py::arg("gains") = py::none(), py::arg("comparison") = py::none());
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
  DefineLoop(m, "refine_surfaces", &RefineSurfaceArrays);
  DefineLoop(m, "measure_shifts", &MeasureShiftArrays);
}

}  // namespace pixcli
