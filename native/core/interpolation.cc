#include "core/interpolation.h"

namespace pixcli {

Sampling MakeSampling(const InterpolationOptions& options, Storage storage, int64_t height, int64_t width,
                      int64_t channels) {
  return {storage,
          static_cast<int32_t>(height),
          static_cast<int32_t>(width),
          static_cast<int32_t>(channels),
          options.bilinear,
          options.l2_normalize,
          options.ncc_normalize,
          static_cast<int32_t>(options.nodes.size() / 2),
          options.nodes.data()};
}

}  // namespace pixcli
