// The poll of a native loop that runs Python code: signal handlers (Ctrl-C) and a caller's callback.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <optional>

#include "core/parallel.h"

namespace pixcli {

// Takes the GIL for each call. An exception of either stops the loop and is rethrown by ThrowIfFailed.
//
// Without a callback it calls nothing until a loop has run for a while: taking the GIL from another thread
// takes longer than many loops, and signals are handled once the native function returns.
class PythonPoll {
 public:
  explicit PythonPoll(pybind11::object callback) : callback_(std::move(callback)) {}

  Poll Function() {
    return [this](int64_t done) {
      const auto now = std::chrono::steady_clock::now();
      if (callback_.is_none() && now - polled_ < kPollInterval) return true;
      polled_ = now;
      const pybind11::gil_scoped_acquire gil;
      if (PyErr_CheckSignals() != 0) return Fail();
      if (callback_.is_none()) return true;
      try {
        callback_(done);
      } catch (pybind11::error_already_set& error) {
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

  pybind11::object callback_;
  std::optional<pybind11::error_already_set> error_;
  std::chrono::steady_clock::time_point polled_ = std::chrono::steady_clock::now();
  bool failed_ = false;
};

}  // namespace pixcli
