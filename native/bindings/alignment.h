#pragma once

#include <pybind11/pybind11.h>

#include "bindings/arrays.h"
#include "core/alignment.h"

namespace pixcli {

// Scale-space patches of a buffer: offset (p,), size (p, 2), origin (p, 3), checked.
PatchArrays PatchesOf(const Array<uint8_t>& buffer, const Array<int64_t>& offset, const Array<int32_t>& size,
                      const Array<double>& origin);

// Templates and jobs, checked; of `num_patches` patches.
TemplateArrays TemplatesOf(const Array<int32_t>& patch, const Array<double>& xy, const Array<double>& spacing,
                           const double* perspective_deviation, const Array<int64_t>& job_ptr,
                           const Array<int32_t>& job_patch, int64_t num_patches);
JobArrays JobsOf(const Array<int32_t>& patch, const Array<double>& starts, int64_t num_patches,
                 Alignment* alignment);

void BindAlignment(pybind11::module_& m);

}  // namespace pixcli
