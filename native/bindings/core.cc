// The module pixcli._core: arrays in, arrays out. Only the files of this folder know Python.
#include <pybind11/pybind11.h>

#include "bindings/alignment.h"
#include "bindings/arrays.h"
#include "bindings/convolution.h"
#include "bindings/featuremetric.h"
#include "bindings/patches.h"
#include "bindings/poll.h"
#include "bindings/references.h"
#include "bindings/scale_space.h"
#include "bindings/surface.h"
#include "bindings/tracks.h"
#include "core/cpu.h"
#include "core/dense_sift.h"

namespace py = pybind11;

namespace pixcli {
namespace {

py::dict BuildConfig() {
  py::dict config;
#if defined(_MSC_VER)
  config["compiler"] = "MSVC " + std::to_string(_MSC_VER);
#else
  config["compiler"] = __VERSION__;
#endif
  config["kernels"] = IsaName(CurrentIsa());
  return config;
}

py::array DenseSiftOfImage(const Array<float>& image, int bin_size, bool rootsift, bool half,
                           int num_threads) {
  RequireShape(image, "image", {-1, -1});
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
  m.def("dense_sift", &DenseSiftOfImage, py::arg("image"), py::kw_only(), py::arg("bin_size"),
        py::arg("rootsift"), py::arg("half"), py::arg("num_threads"),
        "Dense SIFT of a (height, width) float32 image: (height, width, 128) of float16 or float32.");
  BindPatches(m);
  BindAlignment(m);
  BindConvolution(m);
  BindFeaturemetric(m);
  BindReferences(m);
  BindScaleSpace(m);
  BindSurface(m);
  BindTracks(m);
}
