#include "bindings/alignment.h"

#include <pybind11/stl.h>

#include <optional>

#include "bindings/arrays.h"
#include "bindings/poll.h"
#include "core/alignment.h"
#include "core/scale_space.h"
#include "core/tracks.h"

namespace py = pybind11;

namespace pixcli {

PatchArrays PatchesOf(const Array<uint8_t>& buffer, const Array<int64_t>& offset, const Array<int32_t>& size,
                      const Array<double>& origin) {
  const py::ssize_t n = offset.size();
  Require(size.size() == 2 * n && origin.size() == 3 * n,
          "patches need offset (p,), size (p, 2), origin (p, 3)");
  for (py::ssize_t i = 0; i < n; ++i) {
    const int64_t area = static_cast<int64_t>(size.data()[2 * i]) * size.data()[2 * i + 1];
    Require(offset.data()[i] >= 0 && area >= 0 && offset.data()[i] + area <= buffer.size(),
            "a patch leaves the buffer");
  }
  return {buffer.data(), offset.data(), size.data(), origin.data()};
}

TemplateArrays TemplatesOf(const Array<int32_t>& patch, const Array<double>& xy, const Array<double>& spacing,
                           const double* perspective_deviation, const Array<int64_t>& job_ptr,
                           const Array<int32_t>& job_patch, int64_t num_patches) {
  const py::ssize_t n = patch.size();
  Require(xy.size() == 2 * n && spacing.size() == n && job_ptr.size() == n + 1 &&
              (n == 0 || job_ptr.data()[n] <= job_patch.size()),
          "templates and jobs must have matching lengths");
  for (py::ssize_t t = 0; t < n; ++t) {
    Require(patch.data()[t] >= 0 && patch.data()[t] < num_patches && job_ptr.data()[t] >= 0 &&
                job_ptr.data()[t] <= job_ptr.data()[t + 1],
            "a template's patch or jobs are out of range");
  }
  return {n, patch.data(), xy.data(), spacing.data(), perspective_deviation, job_ptr.data()};
}

JobArrays JobsOf(const Array<int32_t>& patch, const Array<double>& starts, int64_t num_patches,
                 Alignment* alignment) {
  Require(
      starts.ndim() == 3 && starts.shape(0) == patch.size() && starts.shape(1) > 0 && starts.shape(2) == 8,
      "starts must be (jobs, candidates, 8)");
  for (py::ssize_t j = 0; j < patch.size(); ++j) {
    Require(patch.data()[j] >= 0 && patch.data()[j] < num_patches, "a job's patch is out of range");
  }
  return {patch.data(), static_cast<int>(starts.shape(1)), reinterpret_cast<const Warp*>(starts.data()),
          alignment};
}

namespace {

py::tuple BuildTracksOfArrays(const Array<int32_t>& edges, const Array<int32_t>& image,
                              const std::optional<Array<float>>& scores) {
  Require(edges.ndim() == 2 && edges.shape(1) == 2, "edges must be (m, 2)");
  Require(!scores || scores->size() == edges.shape(0), "scores must have one value for each edge");
  const int32_t n = static_cast<int32_t>(image.size());
  for (py::ssize_t i = 0; i < edges.size(); ++i) {
    Require(edges.data()[i] >= 0 && edges.data()[i] < n, "edges must be indices into image");
  }
  Tracks tracks;
  {
    const py::gil_scoped_release release;
    tracks = BuildTracks(edges.data(), edges.shape(0), scores ? scores->data() : nullptr, image.data(), n);
  }
  const auto to_array = [](const auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    return ToArray<T>(values, {static_cast<py::ssize_t>(values.size())});
  };
  return py::make_tuple(to_array(tracks.ptr), to_array(tracks.members), to_array(tracks.label));
}

AxisFilter AxisFilterOf(const Array<int32_t>& first, const Array<float>& weight, py::ssize_t input_length) {
  Require(weight.ndim() == 2 && weight.shape(0) == first.size(), "weights must be (length, taps)");
  const int32_t taps = static_cast<int32_t>(weight.shape(1));
  for (py::ssize_t i = 0; i < first.size(); ++i) {
    Require(first.data()[i] >= 0 && first.data()[i] + taps <= input_length, "a tap lies outside the image");
  }
  return {static_cast<int32_t>(first.size()), taps, first.data(), weight.data()};
}

Array<float> ResampleArray(const Array<float>& image, const Array<int32_t>& first_row,
                           const Array<float>& row_weights, const Array<int32_t>& first_col,
                           const Array<float>& col_weights) {
  Require(image.ndim() == 2, "image must be (height, width)");
  const AxisFilter rows = AxisFilterOf(first_row, row_weights, image.shape(0));
  const AxisFilter cols = AxisFilterOf(first_col, col_weights, image.shape(1));
  Array<float> out({rows.length, cols.length});
  const float* source = image.data();
  float* target = out.mutable_data();
  const py::gil_scoped_release release;
  Resample(source, static_cast<int32_t>(image.shape(1)), rows, cols, target);
  return out;
}

void CutPatchesOfMap(const Array<float>& map, const Array<int32_t>& boxes, const Array<int64_t>& offset,
                     Array<uint8_t>& buffer) {
  Require(map.ndim() == 2 && boxes.ndim() == 2 && boxes.shape(1) == 4 && boxes.shape(0) == offset.size(),
          "map must be (height, width), boxes (n, 4), offset (n,)");
  const auto box = boxes.unchecked<2>();
  for (py::ssize_t i = 0; i < box.shape(0); ++i) {
    const int64_t area = static_cast<int64_t>(box(i, 2)) * box(i, 3);
    Require(box(i, 0) >= 0 && box(i, 1) >= 0 && box(i, 2) > 0 && box(i, 3) > 0 &&
                box(i, 0) + box(i, 2) <= map.shape(1) && box(i, 1) + box(i, 3) <= map.shape(0) &&
                offset.data()[i] >= 0 && offset.data()[i] + area <= buffer.size(),
            "a box leaves the map or the buffer");
  }
  const float* source = map.data();
  uint8_t* target = buffer.mutable_data();
  const py::gil_scoped_release release;
  CutPatches(source, static_cast<int32_t>(map.shape(1)), boxes.data(), offset.data(), offset.size(), target);
}

Array<Alignment> AlignPatchArrays(const Array<uint8_t>& buffer, const Array<int64_t>& offset,
                                  const Array<int32_t>& size, const Array<double>& origin, int radius,
                                  double window, const Array<int32_t>& template_patch,
                                  const Array<double>& template_xy, const Array<double>& template_spacing,
                                  const Array<double>& perspective_deviation, const Array<int64_t>& job_ptr,
                                  const Array<int32_t>& job_patch, const Array<double>& starts,
                                  int max_iterations, double max_excursion, double step_tolerance,
                                  bool translation, int num_threads, const py::object& progress) {
  const PatchArrays patches = PatchesOf(buffer, offset, size, origin);
  Require(perspective_deviation.size() == template_patch.size(),
          "perspective_deviation must be (templates,)");
  const TemplateArrays templates =
      TemplatesOf(template_patch, template_xy, template_spacing, perspective_deviation.data(), job_ptr,
                  job_patch, offset.size());
  const Support support(radius, window);
  Array<Alignment> alignment(job_patch.size());
  const JobArrays jobs = JobsOf(job_patch, starts, offset.size(), alignment.mutable_data());
  PythonPoll poll(progress);
  {
    const py::gil_scoped_release release;
    AlignPatches(patches, support, templates, jobs,
                 {max_iterations, max_excursion, step_tolerance, translation}, num_threads, poll.Function());
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
  m.attr("OUTCOME_OUTSIDE") = static_cast<int32_t>(Outcome::kOutside);
  m.attr("OUTCOME_FLAT") = static_cast<int32_t>(Outcome::kFlat);
  m.attr("OUTCOME_DIVERGED") = static_cast<int32_t>(Outcome::kDiverged);
  m.def("build_tracks", &BuildTracksOfArrays, py::arg("edges"), py::arg("image"),
        py::arg("scores") = py::none());
  m.def("resample", &ResampleArray, py::arg("image"), py::arg("first_row"), py::arg("row_weights"),
        py::arg("first_col"), py::arg("col_weights"));
  m.def("cut_patches", &CutPatchesOfMap, py::arg("map"), py::arg("boxes"), py::arg("offset"),
        py::arg("buffer").noconvert());
  m.def("align_patches", &AlignPatchArrays, py::arg("buffer"), py::arg("offset"), py::arg("size"),
        py::arg("origin"), py::arg("radius"), py::arg("window"), py::arg("template_patch"),
        py::arg("template_xy"), py::arg("template_spacing"), py::arg("perspective_deviation"),
        py::arg("job_ptr"), py::arg("job_patch"), py::arg("starts"), py::arg("max_iterations"),
        py::arg("max_excursion"), py::arg("step_tolerance"), py::arg("translation"), py::arg("num_threads"),
        py::arg("progress") = py::none());
}

}  // namespace pixcli
