// The yardstick of benchmarks.
#pragma once

#include <stdint.h>

namespace pixcli {

// `count` independent multiply-adds, 8 in a register where there is AVX2.
float MultiplyAdd(int64_t count);

namespace baseline {
float MultiplyAdd(int64_t count);
}
namespace avx2 {
float MultiplyAdd(int64_t count);
}

}  // namespace pixcli
