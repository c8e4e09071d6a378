// The 4x4 samples that bicubic interpolation takes, kept apart from the patch that they are in.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>

#include "core/interpolation.h"

namespace pixcli {

// Tells the system that the pages of these bytes of a mapped file are not needed in memory any more. What is
// read there later comes from the file again: never to be used on memory that is no file's.
inline void ReleasePages(const void* begin, int64_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = address / page * page, last = (address + bytes + page - 1) / page * page;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

// In one piece, they are read faster than from the rows of a patch, each of which is in a page of its own. Of
// a patch that is mapped from a file, nothing else stays in memory. Sampling the window gives the very same
// bits as sampling the patch.
class PatchWindow {
 public:
  // Whether a window serves this position: its samples are all inside the patch.
  static bool Serves(const Sampling& patch, double u, double v) {
    return u >= 1 && u < patch.width - 2 && v >= 1 && v < patch.height - 2;
  }

  // Makes the window that is around (u, v), and turns them into coordinates of the window.
  void MoveTo(const Sampling& patch, const void* data, bool mapped, double* u, double* v) {
    const auto column = static_cast<int32_t>(*u) - 1, row = static_cast<int32_t>(*v) - 1;
    const int64_t sample = PatchBytes(patch) / (static_cast<int64_t>(patch.height) * patch.width);
    if (!samples_ || column != column_ || row != row_) {
      if (!samples_) samples_ = std::make_unique<char[]>(kEdge * kEdge * sample);
      for (int r = 0; r < kEdge; ++r) {
        const int64_t from = (static_cast<int64_t>(row) + r) * patch.width + column;
        std::memcpy(samples_.get() + r * kEdge * sample, static_cast<const char*>(data) + from * sample,
                    kEdge * sample);
      }
      column_ = column, row_ = row;
      if (mapped) ReleasePages(data, PatchBytes(patch));
    }
    *u -= column, *v -= row;
  }
  const void* data() const { return samples_.get(); }

  static Sampling Inside(Sampling patch) {
    patch.height = patch.width = kEdge;
    return patch;
  }

 private:
  static constexpr int kEdge = 4;
  std::unique_ptr<char[]> samples_;
  int32_t column_ = 0, row_ = 0;
};

}  // namespace pixcli
