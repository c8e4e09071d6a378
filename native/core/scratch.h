// Memory for kernels, aligned as they need it, that grows and is kept.
#pragma once

#include <cstdint>
#include <vector>

namespace pixcli {

class Scratch {
 public:
  char* Take(int64_t size) {
    if (static_cast<int64_t>(memory_.size()) < size + kAlignment) memory_.resize(size + kAlignment);
    const size_t misaligned = reinterpret_cast<uintptr_t>(memory_.data()) % kAlignment;
    return memory_.data() + (misaligned ? kAlignment - misaligned : 0);
  }

 private:
  static constexpr int64_t kAlignment = 64;
  std::vector<char> memory_;
};

}  // namespace pixcli
