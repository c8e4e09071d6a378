// The module pixcli._core: arrays in, arrays out. Only the files of this folder know Python.
#include <pybind11/pybind11.h>

#include "bindings/alignment.h"
#include "bindings/arrays.h"
#include "bindings/featuremetric.h"
#include "bindings/features.h"
#include "bindings/poll.h"
#include "bindings/references.h"
#include "bindings/surface.h"
#include "core/cpu.h"
#include "core/dense_sift.h"

namespace py = pybind11;

namespace pixcli {
namespace {

py::dict BuildConfig() {
  py::dict config;
  config["compiler"] = __VERSION__;
  config["kernels"] = IsaName(CurrentIsa());
  return config;
}

py::array DenseSiftOfImage(const Array<float>& image, int bin_size, bool rootsift, bool half,
                           int num_threads) {
  Require(image.ndim() == 2, "image must have the shape (height, width)");
  Require(bin_size >= 1, "bin_size must be at least 1");
  const py::ssize_t height = image.shape(0), width = image.shape(1);
  py::array out(py::dtype(half ? "e" : "f"), {height, width, py::ssize_t{128}});
  PythonPoll poll(py::none{});
  {
    const float* pixels = image.data();
    void* descriptors = out.mutable_data();
    const py::gil_scoped_release release;
    DenseSift(pixels, height, width, {bin_size, rootsift, half}, descriptors, num_threads, poll.Function());
  }
  poll.ThrowIfFailed();
  return out;
}

}  // namespace
}  // namespace pixcli

PYBIND11_MODULE(_core, m) {
  using namespace pixcli;
  m.doc() = "Native core of pixcli: tracks, interpolation and alignment on arrays.";
  m.def("build_config", &BuildConfig, "Facts about the build and the kernels in use, for bug reports.");
  m.def("dense_sift", &DenseSiftOfImage, py::arg("image"), py::kw_only(), py::arg("bin_size") = 4,
        py::arg("rootsift") = true, py::arg("half") = true, py::arg("num_threads") = -1,
        "Dense SIFT of a (height, width) float32 image: (height, width, 128) of float16 or float32.");
  BindAlignment(m);
  BindFeaturemetric(m);
  BindFeatures(m);
  BindReferences(m);
  BindSurface(m);
}
