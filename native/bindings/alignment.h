#pragma once

#include <pybind11/pybind11.h>

#include "bindings/arrays.h"
#include "core/alignment.h"

namespace pixcli {

// Scale-space patches of a buffer: offset (p,), size (p, 2), origin (p, 3), checked.
PatchArrays PatchesOf(const Array<uint8_t>& buffer, const Array<int64_t>& offset, const Array<int32_t>& size,
                      const Array<double>& origin);

void BindAlignment(pybind11::module_& m);

}  // namespace pixcli
