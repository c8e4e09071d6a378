// The module pixcli._core: arrays in, arrays out. The only file of the module that knows Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "core/cpu.h"
#include "core/parallel.h"

namespace py = pybind11;

namespace pixcli {
namespace {

py::dict BuildConfig() {
  py::dict config;
  config["compiler"] = __VERSION__;
  config["kernels"] = IsaName(CurrentIsa());
  return config;
}

// A poll that runs Python's signal handlers (Ctrl-C) and the caller's callback, with the GIL held meanwhile.
// An exception of either stops the loop and is rethrown by the caller's ThrowIfFailed.
class PythonPoll {
 public:
  explicit PythonPoll(py::object callback) : callback_(std::move(callback)) {}

  Poll Function() {
    return [this](int64_t done) {
      const py::gil_scoped_acquire gil;
      if (PyErr_CheckSignals() != 0) return Fail();
      if (callback_.is_none()) return true;
      try {
        callback_(done);
      } catch (py::error_already_set& error) {
        error.restore();
        return Fail();
      }
      return true;
    };
  }

  void ThrowIfFailed() {
    if (failed_) throw std::move(*error_);
  }

 private:
  bool Fail() {
    error_.emplace();  // fetches the current Python error
    failed_ = true;
    return false;
  }

  py::object callback_;
  std::optional<py::error_already_set> error_;
  bool failed_ = false;
};

}  // namespace
}  // namespace pixcli

PYBIND11_MODULE(_core, m) {
  using namespace pixcli;
  m.doc() = "Native core of pixcli: tracks, interpolation and alignment on arrays.";
  m.def("build_config", &BuildConfig, "Facts about the build and the kernels in use, for bug reports.");
}
