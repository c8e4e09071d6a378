// The module pixcli._core: arrays in, arrays out. Only the files of this folder know Python.
#include <pybind11/pybind11.h>

#include "bindings/featuremetric.h"
#include "core/cpu.h"

namespace py = pybind11;

namespace pixcli {
namespace {

py::dict BuildConfig() {
  py::dict config;
  config["compiler"] = __VERSION__;
  config["kernels"] = IsaName(CurrentIsa());
  return config;
}

}  // namespace
}  // namespace pixcli

PYBIND11_MODULE(_core, m) {
  using namespace pixcli;
  m.doc() = "Native core of pixcli: tracks, interpolation and alignment on arrays.";
  m.def("build_config", &BuildConfig, "Facts about the build and the kernels in use, for bug reports.");
  BindFeaturemetric(m);
}
