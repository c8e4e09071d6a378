#include "bindings/tracks.h"

#include <optional>

#include "bindings/arrays.h"
#include "core/tracks.h"

namespace py = pybind11;
using namespace py::literals;

namespace pixcli {
namespace {

py::tuple BuildTracksOfArrays(const Array<int32_t>& edges, const Array<int32_t>& image,
                              const std::optional<Array<float>>& scores) {
  Require(edges.ndim() == 2 && edges.shape(1) == 2, "edges must be (m, 2)");
  Require(!scores || scores->size() == edges.shape(0), "scores must have one value for each edge");
  Require(image.size() <= INT32_MAX, "image must have less than 2^31 keypoints");
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

}  // namespace

void BindTracks(py::module_& m) {
  m.def("build_tracks", &BuildTracksOfArrays, "edges"_a, "image"_a, "scores"_a = py::none(),
        "Tracks of keypoints that edges (m, 2) link, by image (n,) and scores (m,): members of track t are "
        "members[ptr[t]:ptr[t + 1]], its root first; label (n,) is the track of each keypoint, -1 for none.");
}

}  // namespace pixcli
